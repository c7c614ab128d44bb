"""Weights that training begins with instead of random ones: simulation first, then real video."""

from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.config import read_json
from genie_robotics.models.left_out import decoder_of, has_decoder
from genie_robotics.pretrained import locate
from genie_robotics.run_folder import digest, load_component, on_cpu
from genie_robotics.training.stages import TRAINED

# Fields that decide how a component is taught or sampled, and no weight: they may differ from the run begun with.
TAUGHT_OTHERWISE = {
    "tokenizer": ("motion_weight",),
    "latent_action": ("motion_weight",),
    "dynamics": ("past", "min_mask_rate", "context_noise", "self_context", "maskgit_steps", "temperature", "guidance"),
}


def begin_with(genie: Genie, run: Path, stages: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Gives what `stages` train the weights that it has in the folder `run`; returns where from and digests, by name.

    How a component was taught may differ, its weights' shapes may not. Latent actions start without codes: those of the
    other video need not be where this one's latents are, and codes that are held would never move there. Where they
    were exported without their decoder, the one that `genie` has stays.

    Raises:
        UserError: one of the components is missing there, or of another configuration.
    """
    folder = locate(run)
    if not folder.is_dir():
        raise UserError(f"--init {run}: there is no such run folder; give one that genie-robotics train made")
    found: dict[str, dict[str, str]] = {}
    for name in components(stages):
        if not (folder / name / "model.safetensors").is_file():
            raise UserError(f"--init {folder} has no trained {name}; choose another, or what to train with --stage")
        decoder = decoder_of(genie.latent_action)
        load_component(getattr(genie, name), folder / name, free=TAUGHT_OTHERWISE.get(name, ()))
        found[name] = {"from": str(run), "digest": digest(on_cpu(getattr(genie, name)))}
        if not has_decoder(genie.latent_action):
            for part_name, part in decoder.items():
                setattr(genie.latent_action, part_name, part)
            found[name]["decoder"] = "anew"
    if "latent_action" in found:
        genie.latent_action.codebook.forget()
    return found


def begun_with(run: Path, init: Path, stages: tuple[str, ...]) -> dict[str, dict[str, str]] | None:
    """What `begin_with` said when `stages` were begun in `run`, where `init` is gone since; None where it is needed.

    Checkpoints hold all that a begun stage goes on with.
    """
    path = run / "config.json"
    if locate(init).is_dir() or not path.exists():
        return None
    if not all((run / "state" / stage).exists() for stage in stages):
        return None
    stored = (read_json(path).get("data") or {}).get("init") or {}
    found = {name: stored.get(name, {}) for name in components(stages)}
    return found if all(entry.get("from") == str(init) for entry in found.values()) else None


def components(stages: tuple[str, ...]) -> tuple[str, ...]:
    """What these stages train."""
    return tuple(dict.fromkeys(name for stage in stages for name in TRAINED[stage]))


def other_beginning(
    run: Path, stages: tuple[str, ...], stored: dict[str, Any], now: dict[str, dict[str, str]]
) -> str | None:
    """How the weights to begin with differ from those that training of the same components has begun with in `run`."""
    for stage in stages:
        for name in TRAINED[stage] if (run / "state" / stage).exists() else ():
            old, new = stored.get(name, {}), now.get(name, {})
            if old.get("digest") != new.get("digest"):
                return f"--init: {old.get('from', 'none')} / {new.get('from', 'none')}"
    return None

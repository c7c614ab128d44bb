"""Weights that training starts from instead of random ones: simulation first, then real video."""

from pathlib import Path
from typing import Any

from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.config import read_json
from genie_robotics.pretrained import locate
from genie_robotics.run_folder import difference, digest, load_component, on_cpu
from genie_robotics.training.stages import STAGES, components_of

# Fields that decide how a component is trained or sampled and no weight: they may differ from the initial run's.
FREE = {
    "tokenizer": ("motion_weight",),
    "latent_action": ("motion_weight",),
    "dynamics": ("min_mask_rate", "maskgit_steps", "temperature", "order"),
}


def init_from(genie: Genie, run: Path, stages: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Loads the weights of the components that `stages` train from the folder `run`.

    Weights must have the same shapes; the fields of FREE may differ. Latent actions start without codes, because the
    codes of other video need not be where this video's latents are, and frozen codes would never move there. If the
    run was exported without the latent action model's decoder, `genie` keeps its own.

    Returns:
        Where the weights came from and their digests, by component.

    Raises:
        UserError: a component is missing there, or has another configuration.
    """
    folder = locate(run)
    if not folder.is_dir():
        raise UserError(f"--init {run}: no such run folder; pass one that genie-robotics train made")
    found: dict[str, dict[str, str]] = {}
    for name in components_of(stages):
        if not (folder / name / "model.safetensors").is_file():
            raise UserError(f"--init {folder} has no trained {name}; pass another run, or choose a --stage")
        decoder, free = genie.latent_action.decoder_parts(), FREE.get(name, ())
        different = difference(getattr(genie, name), folder / name, free)
        if different is not None:
            raise UserError(
                f"--init {run}: its {name} was trained with {different.field}={different.stored}, and this run has "
                f"{different.expected}; leave out --preset and the model's options, which then are those of {run}"
            )
        load_component(getattr(genie, name), folder / name, free)
        found[name] = {"from": str(run), "digest": digest(on_cpu(getattr(genie, name)))}
        if not genie.latent_action.has_decoder:
            for part_name, part in decoder.items():
                setattr(genie.latent_action, part_name, part)
            found[name]["decoder"] = "random"
    if "latent_action" in found:
        genie.latent_action.quantizer.reset()
    return found


def stored_init(run: Path, init: Path, stages: tuple[str, ...]) -> dict[str, dict[str, str]] | None:
    """The result of `init_from` as `run` has stored it, if the folder `init` is gone and no longer needed; or None.

    Checkpoints hold everything that a started stage continues with.
    """
    path = run / "config.json"
    if locate(init).is_dir() or not path.exists():
        return None
    if not all((run / "state" / stage).exists() for stage in stages):
        return None
    stored = (read_json(path).get("data") or {}).get("init") or {}
    found = {name: stored.get(name, {}) for name in components_of(stages)}
    return found if all(entry.get("from") == str(init) for entry in found.values()) else None


def other_init(
    run: Path, stages: tuple[str, ...], stored: dict[str, Any], now: dict[str, dict[str, str]]
) -> str | None:
    """How the initial weights differ from those that the same stages of `run` started from; None if they are equal."""
    for stage in stages:
        for name in STAGES[stage].trains if (run / "state" / stage).exists() else ():
            old, new = stored.get(name, {}), now.get(name, {})
            if old.get("digest") != new.get("digest"):
                return f"--init: {old.get('from', 'none')} / {new.get('from', 'none')}"
    return None

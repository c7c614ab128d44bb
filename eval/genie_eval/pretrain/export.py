"""`export_world`: a trained run and its independent judge as one small folder that plays, judges and travels.

OUT/config.json                                     `exported` says how it was stored, and on what it was trained
OUT/{tokenizer,latent_action,dynamics}/{config.json,model.safetensors}
OUT/judge/config.json, OUT/judge/latent_action/...  another seed's latent action model: `evaluate` asks it

Weights are in 16 bits and are loaded as float32; the latent action models have lost their decoders.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from genie_datasets.base.errors import UserError
from genie_eval.pretrain.rounding import FORMATS, choose_format
from genie_robotics.genie import Genie
from genie_robotics.models.config import COMPONENTS, read_json
from genie_robotics.models.left_out import drop_decoder
from genie_robotics.run_folder import (
    digest,
    load_component,
    load_config,
    on_cpu,
    save_component,
    save_config,
)

LARGEST = 10_000_000
"""Bytes of a world that comes with the package, its judge included."""


def export_world(
    run: str | Path, judge_run: str | Path, out: str | Path, clips: UInt8[Tensor, "B T H W 3"] | None = None
) -> dict[str, Any]:
    """Writes the world of `run` with the judge of `judge_run` into `out`, and returns config.json's entry `exported`.

    The same runs give the same bytes. `clips` (of the training data) decide by measurement between float16 and
    bfloat16. Of `judge_run` only the latent action model need have been trained.

    Raises:
        UserError: a run is missing or damaged, or the judge is no independent one.
    """
    run, judge_run, out = Path(run), Path(judge_run), Path(out)
    genie = Genie.from_pretrained(run)
    judge = load_judge(judge_run)
    check_judge(genie, judge, judge_run)
    name, measured = choose_format(genie, clips)
    for model in (genie, judge):
        drop_decoder(model.latent_action)
    stored = read_json(run / "config.json")
    exported: dict[str, Any] = {
        "weights": name,
        "rounding": measured,
        "float32": {part: digest(on_cpu(getattr(genie, part))) for part in COMPONENTS}
        | {"judge": digest(on_cpu(judge.latent_action))},
        "data": provenance(stored),
        "judge_data": provenance(read_json(judge_run / "config.json")),
    }
    dtype = FORMATS[name]
    (out / "config.json").unlink(missing_ok=True)  # until everything is there, it is no run folder
    save_component(judge.latent_action, out / "judge" / "latent_action", dtype)
    save_config(judge.config, out / "judge", components=["latent_action"], exported={"weights": name})
    for part in COMPONENTS:
        save_component(getattr(genie, part), out / part, dtype)
    training = {key: stored[key] for key in ("training", "loop") if key in stored}
    save_config(genie.config, out, exported=exported, **training)
    return exported


def load_judge(run: Path) -> Genie:
    """The latent action model of a run, whatever else it has."""
    judge = Genie(load_config(run), ["latent_action"])
    load_component(judge.latent_action, run / "latent_action")
    return judge.eval()


def check_judge(genie: Genie, judge: Genie, where: Path) -> None:
    """Raises UserError where it sees other frames, or is the world's own latent action model."""
    if tuple(judge.config.image_size) != tuple(genie.config.image_size):
        raise UserError(
            f"{where} sees frames of {judge.config.image_size}, the world of {genie.config.image_size}: train a judge "
            "of the same size"
        )
    own, other = (on_cpu(model.latent_action) for model in (genie, judge))
    if own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own):
        raise UserError(f"{where} has the world's own latent action model, which agrees with itself: use another seed")


def provenance(stored: dict[str, Any]) -> dict[str, Any]:
    """What a run was trained on, without the paths of the machine that it was trained on."""
    data, loop = stored.get("data") or {}, stored.get("loop") or {}
    return {key: data.get(key) for key in ("fingerprint", "split")} | {"seed": loop.get("seed")}


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

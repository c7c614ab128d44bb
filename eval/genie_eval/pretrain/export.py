"""`export_world`: writes a trained run and its independent judge as one small folder.

OUT/config.json                                     `exported` says how it was stored and on what it was trained
OUT/{tokenizer,latent_action,dynamics}/{config.json,model.safetensors}
OUT/judge/config.json, OUT/judge/latent_action/...  latent action model of another seed, which `evaluate` uses

Weights are stored in 16 bits and loaded as float32. The latent action models have no decoders.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from genie_datasets.base.errors import UserError
from genie_eval.dreams.pixels import decibel
from genie_robotics.genie import Genie
from genie_robotics.models.config import COMPONENTS, read_json
from genie_robotics.run_folder import in_range, load_component, load_config, on_cpu, save_component, save_config

LARGEST = 10_000_000
"""Largest allowed size of a world that comes with the package, judge included, in bytes."""


def export_world(
    run: str | Path, judge_run: str | Path, out: str | Path, clips: UInt8[Tensor, "B T H W 3"] | None = None
) -> dict[str, Any]:
    """Writes the world of `run` with the judge of `judge_run` into `out`; returns the entry `exported` of config.json.

    Equal runs give equal bytes. `judge_run` needs a trained latent action model only.

    clips: training clips on which the effect of rounding is measured.

    Raises:
        UserError: a run is missing or damaged, or the judge is the world's own latent action model.
    """
    run, judge_run, out = Path(run), Path(judge_run), Path(out)
    genie = Genie.from_pretrained(run)
    judge = load_judge(judge_run)
    check_judge(genie, judge, judge_run)
    measured = measure_rounding(genie, clips) if clips is not None else {}
    for model in (genie, judge):
        model.latent_action.drop_decoder()
    stored = read_json(run / "config.json")
    exported: dict[str, Any] = {
        "weights": "float16",
        "rounding": measured,
        "data": provenance(stored),
        "judge_data": provenance(read_json(judge_run / "config.json")),
    }
    (out / "config.json").unlink(missing_ok=True)  # an incomplete export must not be loaded
    save_component(judge.latent_action, out / "judge" / "latent_action", torch.float16)
    save_config(judge.config, out / "judge", components=["latent_action"], exported={"weights": "float16"})
    for part in COMPONENTS:
        save_component(getattr(genie, part), out / part, torch.float16)
    if genie.trust_model is not None:
        genie.trust_model.write(out)
    training = {key: stored[key] for key in ("training", "loop") if key in stored}
    save_config(genie.config, out, exported=exported, **training)
    return exported


def rounded(genie: Genie, dtype: torch.dtype = torch.float16) -> Genie:
    """A copy with weights rounded to `dtype`, as a file stores them."""
    made = copy.deepcopy(genie)
    for name in COMPONENTS:
        part = getattr(made, name)
        part.load_state_dict({key: in_range(value, dtype) for key, value in part.state_dict().items()})
    return made


def measure_rounding(genie: Genie, clips: UInt8[Tensor, "B T H W 3"]) -> dict[str, float]:
    """The effect of storing weights in float16, on these clips: fractions of latent actions (`codes`) and of `tokens`
    that differ, and the loss of reconstruction PSNR in dB (`psnr_lost`)."""
    other = rounded(genie)
    tokens, codes = genie.tokenize(clips), genie.infer_actions(clips)
    other_tokens = other.tokenize(clips)
    lost = _psnr(genie.reconstruct(clips), clips) - _psnr(other.reconstruct(clips), clips)
    return {
        "codes": (codes != other.infer_actions(clips)).double().mean().item(),
        "tokens": (tokens != other_tokens).double().mean().item(),
        "psnr_lost": lost,
    }


def _psnr(a: UInt8[Tensor, "*S"], b: UInt8[Tensor, "*S"]) -> float:
    """PSNR over all pixels of all frames, dB."""
    return float(decibel((a.double() - b.to(a.device).double()).square().mean().cpu().numpy()))


def load_judge(run: Path) -> Genie:
    """The latent action model of a run, without its other components."""
    judge = Genie(load_config(run), ["latent_action"])
    load_component(judge.latent_action, run / "latent_action")
    return judge.eval()


def check_judge(genie: Genie, judge: Genie, where: Path) -> None:
    """Raises UserError if the judge has another image size, or is the world's own latent action model."""
    if tuple(judge.config.image_size) != tuple(genie.config.image_size):
        own, expected = (f"{height}x{width}" for height, width in (judge.config.image_size, genie.config.image_size))
        raise UserError(
            f"the judge {where} reads frames of {own}, expected {expected} as the world does; "
            f"train a judge of the same size: --image-size {expected}"
        )
    weights, other = (on_cpu(model.latent_action) for model in (genie, judge))
    if weights.keys() == other.keys() and all(torch.equal(weights[key], other[key]) for key in weights):
        raise UserError(
            f"the judge {where} is the world's own model, which agrees with itself; train one with another --seed"
        )


def provenance(stored: dict[str, Any]) -> dict[str, Any]:
    """The data and the seed of a run, without paths of the machine that trained it."""
    data, loop = stored.get("data") or {}, stored.get("loop") or {}
    return {key: data.get(key) for key in ("fingerprint", "split")} | {"seed": loop.get("seed")}


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

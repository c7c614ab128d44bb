"""The studies that come with the package. `ours` is the unchanged preset."""

from typing import Any

from genie_datasets.base.errors import UserError
from genie_eval.ablation.study import Study, Variant, read_study

OURS = Variant("ours", "the preset's defaults")
STRAIGHT_THROUGH: dict[str, Any] = {
    "latent_action.quantizer.vq.freeze_after_init": False,
    "latent_action.quantizer.vq.whiten": 0.0,
}
EARLY: dict[str, Any] = {
    **STRAIGHT_THROUGH,
    "latent_action.quantizer.vq.quantize_after_steps": 100,
    "latent_action.quantizer.vq.quantize_after_fraction": 1.0,
}
PAPER_LATENT_ACTION: dict[str, Any] = {
    **STRAIGHT_THROUGH,
    "latent_action.quantizer.vq.quantize_after_steps": 0,
    "latent_action.quantizer.vq.dead_code_threshold": 0.0,
    "latent_action.patch_size": 16,
    "latent_action.input_diff": False,
    "latent_action.predict_diff": False,
    "latent_action.encoder_history": True,
    "latent_action.decoder_history": True,
    "latent_action.action_input": "add",
    "latent_action.motion_weight": 0.0,
    "latent_action.frame_space": "pixels",
}
PAPER_DYNAMICS: dict[str, Any] = {
    "dynamics.action_input": "add",
    "dynamics.prev_frame_tokens": False,
    "dynamics.temperature": 2.0,
    "dynamics.maskgit_steps": 25,
}


LATENT_ACTION = Study(
    name="latent-action",
    question="Which choices of the latent action model make its codes consistent?",
    variants=(
        OURS,
        Variant("input-tokens", "reads and predicts tokens instead of pixels", {"latent_action.frame_space": "tokens"}),
        Variant("action-add", "the action is added to every patch (paper)", {"latent_action.action_input": "add"}),
        Variant("action-prepend", "the action is a token of its own", {"latent_action.action_input": "prepend"}),
        Variant("encoder-history", "encoder reads all earlier frames (paper)", {"latent_action.encoder_history": True}),
        Variant("decoder-history", "decoder reads all earlier frames (paper)", {"latent_action.decoder_history": True}),
        Variant("frame-only", "encoder reads two frames, not their difference", {"latent_action.input_diff": False}),
        Variant("predict-frame", "the whole next frame is predicted (paper)", {"latent_action.predict_diff": False}),
        Variant("patch-16", "patches of 16 pixels (paper)", {"latent_action.patch_size": 16}),
        Variant("motion-weight", "moving pixels have double weight in the loss", {"latent_action.motion_weight": 1.0}),
        Variant(
            "straight-through", "straight-through gradients from 95 % of the steps; no whitening", STRAIGHT_THROUGH
        ),
        Variant("no-whitening", "k-means of latents without whitening", {"latent_action.quantizer.vq.whiten": 0.0}),
        Variant(
            "no-freeze",
            "codes keep learning, with straight-through gradients",
            {"latent_action.quantizer.vq.freeze_after_init": False},
        ),
        Variant("start-100", "straight-through gradients from step 100; no whitening", EARLY),
        Variant(
            "start-30%",
            "straight-through gradients from 30 % of the steps; no whitening",
            {
                **EARLY,
                "latent_action.quantizer.vq.quantize_after_steps": 10**9,
                "latent_action.quantizer.vq.quantize_after_fraction": 0.3,
            },
        ),
        Variant("fsq", "fixed grid of 2 x 2 x 2 codes", {**STRAIGHT_THROUGH, "latent_action.quantizer.kind": "fsq"}),
        Variant("paper", "all choices of the paper, at this size", PAPER_LATENT_ACTION),
    ),
)
CODES = Study(
    name="codes",
    question="How many latent actions?",
    reference="K8",
    variants=tuple(Variant(f"K{k}", f"{k} codes", {"latent_action.quantizer.num_codes": k}) for k in (4, 8, 16, 32)),
)
TOKENIZER = Study(
    name="tokenizer",
    question="How fine should the tokenizer's patches be?",
    stages=("tokenizer", "dynamics"),
    measure=("dreams",),
    variants=(
        Variant("patch-8", "patches of 8 pixels (ours)"),
        Variant("patch-4", "patches of 4 pixels (paper): four times the tokens", {"tokenizer.patch_size": 4}),
    ),
)
DYNAMICS = Study(
    name="dynamics",
    question="How should the dynamics read the action and the previous frame?",
    stages=("dynamics",),
    measure=("dreams",),
    variants=(
        Variant("ours", "the action scales and shifts every layer; previous frame's tokens are read"),
        Variant("action-add", "the action is added to every token (paper)", {"dynamics.action_input": "add"}),
        Variant("action-prepend", "the action is a token of its own", {"dynamics.action_input": "prepend"}),
        Variant("no-prev-frame", "previous frame's tokens are not read (paper)", {"dynamics.prev_frame_tokens": False}),
        Variant("paper", "all choices of the paper, at this size", PAPER_DYNAMICS),
    ),
)
MODES = Study(
    name="modes",
    question="Should latent actions and dynamics train separately or together?",
    stages=("latent_action", "dynamics", "joint"),
    measure=("codes", "dreams"),
    variants=(
        Variant("frozen", "latent actions first, then the dynamics on their codes", mode="frozen"),
        Variant("cotrain", "both at once, no gradient between them (paper)", mode="cotrain"),
        Variant(
            "warmup",
            "latent actions alone for half of the steps, then both with all gradients for 3/4 of the steps: equal work",
            mode="warmup",
            steps={"latent_action": 0.5, "joint": 0.75},
        ),
        Variant("end_to_end", "the loss of the dynamics alone trains the actions", mode="end_to_end"),
    ),
)
LABELS = Study(
    name="labels",
    question="How much do a few true actions help?",
    reference="0%",
    variants=(
        Variant("0%", "no labels"),
        Variant("1%", "1 % of the true actions given", labels=0.01),
        Variant("2%", "2 % of the true actions given", labels=0.02),
        Variant("5%", "5 % of the true actions given", labels=0.05),
        Variant("100%", "all true actions given", labels=1.0),
        Variant("5%-translation", "5 %, translation only", {"training.labels.columns": (0, 1, 2)}, labels=0.05),
    ),
)
LABELS_WORLD = Study(
    name="labels-world",
    question="How much do a few true actions help the dreams?",
    reference="0%",
    stages=("latent_action", "dynamics"),
    measure=("codes", "dreams"),
    variants=tuple(LABELS.variant(name) for name in ("0%", "1%", "5%")),
)


def sizes(component: str) -> tuple[Variant, ...]:
    """`nano` with one change: width of the component, number of training episodes, or batch size."""
    return (
        Variant("nano", "width 128, all episodes, 4 clips per step"),
        *(
            Variant(f"width-{n}", f"width {n}", {f"{component}.width": n, f"{component}.num_heads": n // 32})
            for n in (32, 64, 256)
        ),
        *(Variant(f"episodes-{n}", f"{n} training episodes", episodes=n) for n in (10, 40, 160)),
        *(
            Variant(f"batch-{n}", f"{n} clip{'s' * (n > 1)} per step", {f"training.{component}.batch_size": n})
            for n in (1, 2, 8)
        ),
    )


SIZES: dict[str, tuple[str, ...]] = {
    "parameters": ("width-32", "width-64", "nano", "width-256"),
    "episodes": ("episodes-10", "episodes-40", "episodes-160", "nano"),
    "batch": ("batch-1", "batch-2", "nano", "batch-8"),
}
SCALE_LATENT_ACTION = Study(
    name="scale-latent-action",
    question="How do size, data and batch change the latent actions, at equal steps?",
    measure=("codes", "losses"),
    variants=sizes("latent_action"),
    axes=SIZES,
)
SCALE_DYNAMICS = Study(
    name="scale-dynamics",
    question="How do size, data and batch change the dynamics, at equal steps on the same codes?",
    stages=("dynamics",),
    measure=("dreams", "losses"),
    variants=sizes("dynamics"),
    axes=SIZES,
)
PAPER_VS_OURS = Study(
    name="paper-vs-ours",
    question="What do all our departures from the paper change together, at this size?",
    stages=("latent_action", "dynamics", "joint"),
    measure=("codes", "dreams"),
    variants=(
        OURS,
        Variant(
            "paper",
            "latent actions and dynamics as in the paper",
            {**PAPER_LATENT_ACTION, **PAPER_DYNAMICS},
            mode="cotrain",
        ),
        Variant("paper-latent-actions", "latent actions of the paper, our dynamics", PAPER_LATENT_ACTION),
        Variant("paper-dynamics", "our latent actions, dynamics of the paper", PAPER_DYNAMICS),
    ),
)
PIXELS_OR_TOKENS = Study(
    name="pixels-or-tokens",
    question="Should the latent action model read pixels or tokens (the paper's table 2)?",
    reference="pixels",
    stages=("latent_action", "dynamics"),
    measure=("codes", "dreams"),
    variants=(
        Variant("pixels", "reads and predicts pixels (paper)", {"latent_action.frame_space": "pixels"}),
        Variant("tokens", "reads and predicts tokens", {"latent_action.frame_space": "tokens"}),
    ),
)
STUDIES = {
    study.name: study
    for study in (
        LATENT_ACTION, CODES, TOKENIZER, DYNAMICS, MODES, LABELS, LABELS_WORLD, PAPER_VS_OURS,
        PIXELS_OR_TOKENS, SCALE_LATENT_ACTION, SCALE_DYNAMICS,
    )
}  # fmt: skip


def find_study(name: str) -> Study:
    """The study of this name, or in this .json or .toml file; raises UserError if there is none."""
    from pathlib import Path

    if name in STUDIES:
        return STUDIES[name]
    if name.endswith((".json", ".toml")):
        return read_study(Path(name))
    raise UserError(f"unknown study '{name}'; expected one of: {', '.join(STUDIES)}, or a .json or .toml file")

"""The studies that come with the package: one list of variants each. `ours` is the preset as it is."""

from typing import Any

from genie_datasets.base.errors import UserError
from genie_eval.ablation.study import Study, Variant, read_study

OURS = Variant("ours", "the preset's defaults")
LEARNT_THROUGH: dict[str, Any] = {
    "latent_action.codebook.hold": False,
    "latent_action.codebook.whiten": 0.0,
}
EARLY: dict[str, Any] = {
    **LEARNT_THROUGH,
    "latent_action.codebook.start_after": 100,
    "latent_action.codebook.start_share": 1.0,
}
PAPER_LATENT_ACTION: dict[str, Any] = {
    **LEARNT_THROUGH,
    "latent_action.codebook.start_after": 0,
    "latent_action.codebook.revive_below": 0.0,
    "latent_action.patch": 16,
    "latent_action.see_change": False,
    "latent_action.predict_change": False,
    "latent_action.encoder_history": True,
    "latent_action.decoder_history": True,
    "latent_action.action_input": "add",
    "latent_action.pool": "mean",
    "latent_action.motion_weight": 0.0,
    "latent_action.debias": False,
    "latent_action.input": "pixels",
}
PAPER_DYNAMICS: dict[str, Any] = {
    "dynamics.action_input": "add",
    "dynamics.context_noise": 0.0,
    "dynamics.self_context": 0.0,
    "dynamics.action_dropout": 0.0,
    "dynamics.past": "masked",
    "dynamics.see_before": False,
    "dynamics.temperature": 2.0,
    "dynamics.maskgit_steps": 25,
}


def of(part: str, name: str, what: str, *, labelled: float = 0.0, **values: Any) -> Variant:
    """A variant that sets fields of one part; a double underscore stands for a dot."""
    fields = {f"{part}.{key.replace('__', '.')}": value for key, value in values.items()}
    return Variant(name, what, fields, labels=labelled)


def lam(name: str, what: str, **values: Any) -> Variant:
    return of("latent_action", name, what, **values)


def dyn(name: str, what: str, **values: Any) -> Variant:
    return of("dynamics", name, what, **values)


LATENT_ACTION = Study(
    name="latent-action",
    question="Which choices of the latent action model make its codes consistent?",
    variants=(
        OURS,
        lam("input-tokens", "reads and predicts tokens instead of pixels (paper's ablation)", input="tokens"),
        lam("action-add", "the action is added to every patch (paper)", action_input="add"),
        lam("action-prepend", "the action is a token before the patches", action_input="prepend"),
        lam("encoder-history", "the encoder sees all frames so far (paper)", encoder_history=True),
        lam("decoder-history", "the decoder sees all frames so far (paper)", decoder_history=True),
        lam("pool-mean", "patches are averaged", pool="mean"),
        lam("frame-only", "the encoder sees two frames, not their change", see_change=False),
        lam("predict-frame", "the whole next frame is predicted (paper)", predict_change=False),
        lam("patch-16", "patches of 16 pixels (paper)", patch=16),
        lam("motion-weight", "what moves counts double in the loss", motion_weight=1.0),
        lam("debias", "the latent of an unchanged pair is subtracted", debias=True),
        Variant("learnt-through", "codes start at 95 % and move on, straight through; no whitening", LEARNT_THROUGH),
        lam("no-whitening", "k-means of latents as they come", codebook__whiten=0.0),
        lam("no-hold", "whitened codes move on, straight through", codebook__hold=False),
        Variant("start-100", "quantised from step 100, straight through; no whitening", EARLY),
        Variant(
            "start-30%",
            "quantised from 30 % on, straight through; no whitening",
            {**EARLY, "latent_action.codebook.start_after": 10**9, "latent_action.codebook.start_share": 0.3},
        ),
        Variant(
            "fsq",
            "a fixed grid of 2 x 2 x 2 codes",
            {**LEARNT_THROUGH, "latent_action.codebook.kind": "fsq"},
        ),
        Variant("paper", "all of the paper's choices at this size", PAPER_LATENT_ACTION),
    ),
)
CODES = Study(
    name="codes",
    question="How many latent actions?",
    reference="K8",
    variants=tuple(Variant(f"K{k}", f"{k} codes", {"latent_action.codebook.num_codes": k}) for k in (4, 8, 16, 32)),
)
TOKENIZER = Study(
    name="tokenizer",
    question="What should the tokenizer attend to, and how fine should its patches be?",
    stages=("tokenizer", "dynamics"),
    measure=("dreams",),
    variants=(
        Variant("st", "space, then time (paper); 8 pixels a patch, ours"),
        of("tokenizer", "spatial", "each frame on its own (ViT)", attention="spatial"),
        of("tokenizer", "full", "all patches of all frames so far (C-ViViT)", attention="full"),
        of("tokenizer", "patch-4", "4 pixels a patch (paper): four times the tokens", patch=4),
    ),
)
DYNAMICS = Study(
    name="dynamics",
    question="How should the action enter the dynamics, and what keeps dreams from drifting?",
    stages=("dynamics",),
    measure=("dreams",),
    variants=(
        Variant("ours", "the action scales and shifts every layer; true context, masked like the present"),
        dyn("action-add", "the action is added to every token (paper)", action_input="add"),
        dyn("action-prepend", "the action is a token before the patches", action_input="prepend"),
        dyn("noise-.1", "up to 10 % of the context wrong", context_noise=0.1),
        dyn("noise-.3", "up to 30 % of the context wrong", context_noise=0.3),
        dyn("self-context", "half of the clips see the model's own guesses", self_context=0.5),
        dyn("past-whole", "earlier frames are shown whole, as in a dream", past="whole"),
        dyn("see-no-before", "beside a token not the one of a frame earlier (paper)", see_before=False),
        dyn(
            "paper",
            "all of the paper's choices at this size",
            **{k.removeprefix("dynamics."): v for k, v in PAPER_DYNAMICS.items()},
        ),
        dyn("guidance-2", "a tenth of the actions is not told; guided twice as far", action_dropout=0.1, guidance=2.0),
    ),
)
MODES = Study(
    name="modes",
    question="Who teaches whom: should latent actions and dynamics learn apart or together?",
    stages=("latent_action", "dynamics", "joint"),
    measure=("codes", "dreams"),
    variants=(
        Variant("frozen", "latent actions first, then the dynamics on them", mode="frozen"),
        Variant("cotrain", "both at once, no gradient from one to the other (paper)", mode="cotrain"),
        Variant(
            "warmup",
            "latent actions alone for half of the steps, then both with all gradients for three quarters: equal work",
            mode="warmup",
            steps={"latent_action": 0.5, "joint": 0.75},
        ),
        Variant("end_to_end", "the dynamics' loss alone teaches the actions", mode="end_to_end"),
    ),
)
LABELS = Study(
    name="labels",
    question="What are a few true actions worth?",
    reference="0%",
    variants=(
        Variant("0%", "no labels"),
        Variant("1%", "1 % of the actions told", labels=0.01),
        Variant("2%", "2 % of the actions told", labels=0.02),
        Variant("5%", "5 % of the actions told", labels=0.05),
        Variant("100%", "all actions told", labels=1.0),
        of(
            "training.labels",
            "5%-translation",
            "5 %, and only where the gripper goes",
            labelled=0.05,
            columns=(0, 1, 2),
        ),
    ),
)
LABELS_WORLD = Study(
    name="labels-world",
    question="What are a few true actions worth to the world that is dreamt from them?",
    reference="0%",
    stages=("latent_action", "dynamics"),
    measure=("codes", "dreams"),
    variants=tuple(LABELS.variant(name) for name in ("0%", "1%", "5%")),
)


def sizes(part: str) -> tuple[Variant, ...]:
    """`nano` with one thing changed: the width of `part`, how much it trains on, how much of that at once."""
    training = f"training.{part}"
    return (
        Variant("nano", "width 128, all episodes, 4 clips a step"),
        *(of(part, f"width-{width}", f"width {width}", width=width, heads=width // 32) for width in (32, 64, 256)),
        *(Variant(f"episodes-{n}", f"{n} training episodes", episodes=n) for n in (10, 40, 160)),
        *(of(training, f"batch-{n}", f"{n} clip{'s' * (n > 1)} a step", batch_size=n) for n in (1, 2, 8)),
    )


SIZES: dict[str, tuple[str, ...]] = {
    "parameters": ("width-32", "width-64", "nano", "width-256"),
    "episodes": ("episodes-10", "episodes-40", "episodes-160", "nano"),
    "batch": ("batch-1", "batch-2", "nano", "batch-8"),
}
SCALE_LATENT_ACTION = Study(
    name="scale-latent-action",
    question="What do size, data and batch give the latent actions, at equal steps?",
    measure=("codes", "losses"),
    variants=sizes("latent_action"),
    axes=SIZES,
)
SCALE_DYNAMICS = Study(
    name="scale-dynamics",
    question="What do size, data and batch give the dynamics, at equal steps on the same codes?",
    stages=("dynamics",),
    measure=("dreams", "losses"),
    variants=sizes("dynamics"),
    axes=SIZES,
)
PAPER_VS_OURS = Study(
    name="paper-vs-ours",
    question="Together: what do our departures from the paper give at this size?",
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
        Variant("paper-latent-actions", "the paper's latent actions, our dynamics", PAPER_LATENT_ACTION),
        Variant("paper-dynamics", "our latent actions, the paper's dynamics", PAPER_DYNAMICS),
    ),
)
PIXELS_OR_TOKENS = Study(
    name="pixels-or-tokens",
    question="Should the latent action model read pixels or tokens (the paper's table 2)?",
    reference="pixels",
    stages=("latent_action", "dynamics"),
    measure=("codes", "dreams"),
    variants=(
        lam("pixels", "reads and predicts pixels (paper)", input="pixels"),
        lam("tokens", "reads and predicts tokens", input="tokens"),
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
    """A study of the package by its name, or one in a .json or .toml file; raises UserError that lists the names."""
    from pathlib import Path

    if name in STUDIES:
        return STUDIES[name]
    if name.endswith((".json", ".toml")):
        return read_study(Path(name))
    raise UserError(f"no study '{name}'; there are: {', '.join(STUDIES)}, or give a .json or .toml file of your own")

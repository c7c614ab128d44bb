"""Few labels in training: they reach the codes at the right time, without them nothing changes, and runs resume."""

import dataclasses
import itertools
import json
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from genie_datasets import ClipDataset, build_frame_cache
from genie_datasets.base.errors import UserError
from genie_datasets.clips.labeled_windows import LabeledWindows
from genie_datasets.clips.labels import Labels, check_places
from genie_datasets.sources.split import Split, frame_ids
from genie_robotics.cli import main
from genie_robotics.genie import Genie
from genie_robotics.models.quantizers import QuantizerConfig, VQConfig
from genie_robotics.training.config import LabelConfig, LoopConfig, StageConfig
from genie_robotics.training.distributed import set_up
from genie_robotics.training.labels import ActionHead, LabelSupervision
from genie_robotics.training.run import check_run_folder
from genie_robotics.training.trainer import Trainer
from tests.genie_robotics.conftest import Squares, random_genie, tiny_config, tiny_options

SIZE, LENGTH, BRIGHT, FAINT = 16, 9, 180, 60


class TwoSquares(Split):
    """A bright square above, and below one with a ninth of its squared error: each jumps 3 pixels left or right."""

    def __init__(self, num_episodes: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        self.name, self.fingerprint = "train", f"two-squares-{seed}"
        self.num_frames, self.hz = np.full(num_episodes, LENGTH), np.full(num_episodes, 3.0)
        self.jumps = rng.choice([-1.0, 1.0], (num_episodes, LENGTH, 2))  # entry t: from frame t to t+1
        place = rng.integers(0, SIZE, (num_episodes, 1, 2)) + np.concatenate(
            [np.zeros((num_episodes, 1, 2)), np.cumsum(3 * self.jumps[:, :-1], 1)], 1
        )
        self.video = np.full((num_episodes, LENGTH, SIZE, SIZE, 3), 50, np.uint8)
        columns = (place[..., None].astype(int) + np.arange(4)) % SIZE  # (E, L, 2, 4)
        for episode in range(num_episodes):
            for t in range(LENGTH):
                self.video[episode, t, 2:6, columns[episode, t, 0]] += np.uint8(BRIGHT)
                self.video[episode, t, 10:14, columns[episode, t, 1]] += np.uint8(FAINT)

    def frames(self, episode, ids=None, size=None, mode="crop"):
        return self.video[episode][frame_ids(ids, LENGTH)]

    def instruction(self, episode):
        return ""

    def episode_name(self, episode):
        return f"episode {episode}"

    def labels(self, count: int, late: int = 0, seed: int = 0) -> Labels:
        """`count` transitions; `late`: each has the jump of that many steps later, as a careless reader would give."""
        rng = np.random.default_rng(seed)
        chosen = rng.choice(self.num_episodes * (LENGTH - 1 - late), count, replace=False)
        episode, step = np.divmod(chosen, LENGTH - 1 - late)
        return Labels("train", episode, step, self.jumps[episode, step + late])


def agreement(codes: torch.Tensor, jumps: np.ndarray) -> float:
    """Fraction of the jumps, left or right, that are the more frequent one of their code: 0.5 knows nothing."""
    table = np.zeros((int(codes.max()) + 1, 2))
    np.add.at(table, (codes.flatten().numpy(), (jumps.flatten() > 0).astype(int)), 1)
    return table.max(1).sum() / table.sum()


# Labels reach the codes

MOVERS = TwoSquares(300)
VQ = VQConfig(quantize_after_steps=200, quantize_after_fraction=0.6)
LEARNER = dataclasses.replace(
    tiny_config(),
    clip_length=5,
    latent_action=dataclasses.replace(
        tiny_config().latent_action,
        patch_size=4,
        width=32,
        encoder_history=False,
        decoder_history=False,
        quantizer=QuantizerConfig(num_codes=4, latent_dim=8, vq=VQ),
    ),
).resolved()


def learn(run, labels: Labels | None, steps: int = 350) -> tuple[float, float, float]:
    """(agreement with the bright square's jumps, with the faint one's, last label_error) on unseen episodes."""
    torch.manual_seed(0)
    genie = Genie(LEARNER)
    clips = ClipDataset(MOVERS, LEARNER.clip_length)
    stage = StageConfig(
        steps=steps,
        batch_size=10,
        learning_rate=3e-3,
        muon_learning_rate=0.02,
        beta2=0.95,
        warmup_steps=10,
        schedule="wsd",
        decay=0.4,
    )
    loop = LoopConfig(save_every=10_000, health_every=0, quiet=True)
    supervision = None
    if labels is not None:
        windows = LabeledWindows(clips, labels, 0, history=False)
        supervision = LabelSupervision(windows, labels.digest, LabelConfig(), genie.latent_action)
    job = Trainer(genie, "latent_action", clips, stage, run, set_up("cpu", "float32"), loop, labels=supervision)
    job.train()
    unseen = TwoSquares(60, seed=1)
    with torch.no_grad():
        codes = genie.latent_action.encode(torch.from_numpy(unseen.video[:, : LEARNER.clip_length]))
    jumps = unseen.jumps[:, : LEARNER.clip_length - 1]
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return agreement(codes, jumps[..., 0]), agreement(codes, jumps[..., 1]), last.get("label_error", np.nan)


def test_few_labels_give_codes_to_a_motion_that_pixels_hardly_show(tmp_path):
    bright, faint, _ = learn(tmp_path / "none", None)
    assert faint < 0.65, "pixels alone must not show it, otherwise this test shows nothing"
    bright, faint, error = learn(tmp_path / "few", MOVERS.labels(120))  # 5 % of the transitions
    assert bright > 0.9
    assert faint > 0.9
    assert error < 0.2


def test_labels_of_the_next_step_teach_nothing(tmp_path):
    _, faint, error = learn(tmp_path, MOVERS.labels(120, late=1), steps=200)
    assert faint < 0.65
    assert error > 0.5


# Alignment


@pytest.mark.parametrize("history", [False, True])
def test_a_window_holds_both_frames_of_its_transition_and_its_action(history):
    clips = ClipDataset(MOVERS, clip_length=5)
    labels = MOVERS.labels(40)
    windows = LabeledWindows(clips, labels, 0, history=history)
    where = {
        (MOVERS.video[e, t].tobytes(), MOVERS.video[e, t + 1].tobytes()): MOVERS.jumps[e, t]
        for e, t in zip(labels.episode, labels.step, strict=True)
    }
    seen, positions = set(), set()
    for step in range(8):
        frames, position, action = windows.batch(step, 5)
        assert frames.shape == (5, 5 if history else 2, SIZE, SIZE, 3)
        for window, at, jump in zip(frames.numpy(), position.tolist(), action.numpy(), strict=True):
            pair = (window[at].tobytes(), window[at + 1].tobytes())
            np.testing.assert_array_equal(where[pair], jump)
            seen.add(pair)
            positions.add(at)
    assert len(seen) == len(where), "40 draws of 40 labels give each label once"
    assert positions == (set(range(4)) if history else {0})


def test_the_head_reads_the_step_from_its_frame_to_the_next_and_nothing_later():
    genie = random_genie(tiny_config())  # its encoder sees all frames before
    windows = LabeledWindows(ClipDataset(MOVERS, clip_length=5), MOVERS.labels(40), 0, history=True)
    supervision = LabelSupervision(windows, "", LabelConfig(), genie.latent_action)
    module = supervision.wrap(genie.latent_action)
    batch = windows.batch(0, 8)

    def error(changed: int) -> torch.Tensor:
        """The error if the frame `changed` steps after the transition's first one is inverted."""
        frames = batch.frames.clone()
        for window, at in zip(frames, batch.position.tolist(), strict=True):
            if 0 <= at + changed < 5:
                window[at + changed] = 255 - window[at + changed]
        return module(batch.frames[:2], batch._replace(frames=frames))[1]["label_error"]

    plain = module(batch.frames[:2], batch)[1]["label_error"]
    for changed in (-1, 0, 1):
        assert error(changed) != plain
    for changed in (2, 3):
        assert error(changed) == plain


def test_actions_are_scaled_by_their_spread_and_constant_numbers_are_left_out():
    actions = torch.tensor([[0.01, 5.0, -100.0], [0.03, 5.0, 300.0]])
    head = ActionHead(4, actions)
    assert head(torch.zeros(2, 4), actions).item() == pytest.approx(1.0), "the mean of the labels only"
    head(torch.randn(2, 4), actions).backward()
    grad = head.directions.grad
    assert grad is not None
    assert grad[0].norm() > 0
    assert grad[2].norm() > 0
    assert not grad[1].any()
    assert ActionHead(4, torch.ones(3, 2))(torch.randn(3, 4), torch.ones(3, 2)).item() == 0


def test_an_action_is_read_from_latents_only_if_it_is_a_large_part_of_their_variance():
    torch.manual_seed(0)
    actions = torch.randn(2000, 2)
    rest = torch.randn(2000, 6)

    def best(part: float) -> float:
        """Error of the best head on latents of 8 numbers; the actions are the fraction `part` of their variance."""
        latents = torch.cat([(4 * part) ** 0.5 * actions, (8 / 6 * (1 - part)) ** 0.5 * rest], 1)
        head = ActionHead(8, actions)
        optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            head(latents, actions).backward()
            optimizer.step()
        return head(latents, actions).item()

    assert best(0.7) < 0.02
    assert best(0.05) > 0.4, "a free linear layer would read it here too"


# The order of the labels


def test_each_process_gets_its_share_of_every_epoch_and_steps_need_no_state():
    labels = MOVERS.labels(48)
    labels = Labels("train", labels.episode, labels.step, np.arange(48.0)[:, None])

    def windows(seed: int = 3) -> LabeledWindows:
        return LabeledWindows(ClipDataset(MOVERS, clip_length=5), labels, seed, history=True)

    parts = [windows().batch(step, 4, rank, 2) for step in range(12) for rank in (0, 1)]
    numbers = [int(number) for part in parts for number in part.action]
    assert sorted(numbers[:48]) == sorted(numbers[48:]) == list(range(48))
    assert numbers[:48] != numbers[48:]
    assert all(torch.equal(a, b) for a, b in zip(windows().batch(11, 4, 1, 2), parts[-1], strict=True))
    assert windows(seed=4).batch(0, 4, 0, 2).action.flatten().tolist() != numbers[:4]


def test_rows_in_another_order_are_the_same_labels():
    labels = MOVERS.labels(30)
    turned = Labels(labels.split, labels.episode[::-1], labels.step[::-1], labels.action[::-1])
    assert turned.digest == labels.digest
    assert MOVERS.labels(30, late=1).digest != labels.digest
    clips = ClipDataset(MOVERS, clip_length=5)
    a, b = (LabeledWindows(clips, rows, 0, history=True).batch(2, 8) for rows in (labels, turned))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# Training


def some(count: int = 20, shift: float = 0.0) -> Labels:
    """Random labels of the tiny Genie's squares."""
    rng = np.random.default_rng(1)
    episode, step = np.divmod(rng.choice(6 * 9, count, replace=False), 9)
    return Labels("train", episode, step, rng.normal(size=(count, 3)) + shift)


def trainer(run, config, clips, stage, labels=None, mode="cotrain", save_every=1000, weight=1.0) -> Trainer:
    torch.manual_seed(0)
    genie = Genie(config)
    stage_config = StageConfig(
        steps=12,
        batch_size=2,
        learning_rate=1e-3,
        muon_learning_rate=0.01,
        warmup_steps=2,
        schedule="wsd",
        decay=0.4,
        ema=0.9,
    )
    loop = LoopConfig(save_every=save_every, log_every=1, quiet=True)
    supervision = None
    if labels is not None:
        windows = LabeledWindows(clips, labels, 0, history=config.latent_action.encoder_history)
        supervision = LabelSupervision(windows, labels.digest, LabelConfig(weight, batch_size=4), genie.latent_action)
    return Trainer(
        genie, stage, clips, stage_config, run, set_up("cpu", "float32"), loop, mode=mode, labels=supervision
    )


class Killed(Exception):
    pass


def kill_after(job: Trainer, num_steps: int) -> None:
    whole = job.train_step

    def step(self, module, frames):
        if self.step == num_steps:
            raise Killed
        return whole(module, frames)

    job.train_step = types.MethodType(step, job)
    with pytest.raises(Killed):
        job.train()


def weights(run, job: Trainer) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": value
        for part in job.trained
        for name, value in load_file(run / part / "model.safetensors").items()
    }


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize(
    ("stage", "mode", "killed_at"),  # before the codebook starts, and after
    [("latent_action", "frozen", 2), ("latent_action", "frozen", 7), ("joint", "cotrain", 2), ("joint", "warmup", 7)],
)
def test_a_killed_run_with_labels_resumes_to_the_same_weights_bit_for_bit(
    tmp_path, config, clips, stage, mode, killed_at
):
    whole = trainer(tmp_path / "whole", config, clips, stage, some(), mode)
    whole.train()
    kill_after(trainer(tmp_path / "cut", config, clips, stage, some(), mode, save_every=1), killed_at)
    cut = trainer(tmp_path / "cut", config, clips, stage, some(), mode)
    assert cut.train()
    assert cut.first_step == killed_at
    assert_same(weights(tmp_path / "whole", whole), weights(tmp_path / "cut", cut))
    assert whole.labels is not None
    assert cut.labels is not None
    assert_same(whole.labels.head.state_dict(), cut.labels.head.state_dict())
    lines = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if "label_error" in line] == list(range(1, 13))


@pytest.mark.parametrize(("stage", "mode"), [("latent_action", "frozen"), ("joint", "end_to_end")])
def test_labels_of_weight_0_change_no_weight_and_others_do(tmp_path, config, clips, stage, mode):
    """So clips, masks and replaced codes are those of a run without labels."""
    found = []
    for name, labels, weight in (("none", None, 1.0), ("zero", some(), 0.0), ("one", some(), 1.0)):
        job = trainer(tmp_path / name, config, clips, stage, labels, mode, weight=weight)
        job.train()
        found.append(weights(tmp_path / name, job))
    assert_same(found[0], found[1])
    assert not torch.equal(found[0]["latent_action.pool.query"], found[2]["latent_action.pool.query"])


def test_with_frozen_codes_labels_train_the_encoder_until_quantization_starts(tmp_path, config, clips):
    config.latent_action.quantizer.vq.freeze_after_init = True
    job = trainer(tmp_path, config, clips, "latent_action", some())
    before = []
    whole = job.train_step

    def step(module, frames):
        before.append(job.genie.latent_action.to_latent.weight.detach().clone())
        return whole(module, frames)

    job.train_step = step
    job.train()
    assert job.genie.latent_action.quantizer.started
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(before)]
    assert moved[:3] == [True] * 3
    assert not any(moved[4:])


def test_the_logged_loss_is_that_of_the_stage(tmp_path, config, clips):
    for name, labels in (("none", None), ("some", some())):
        trainer(tmp_path / name, config, clips, "latent_action", labels).train()
    none, with_labels = (json.loads((tmp_path / run / "metrics.jsonl").open().readline()) for run in ("none", "some"))
    assert none["loss"] == with_labels["loss"]
    assert "label_error" not in none
    assert 0.2 < with_labels["label_error"] < 3, "near 1 before anything is learned"


def test_the_head_is_in_the_checkpoint_and_not_in_the_models_file(tmp_path, config, clips):
    for name, labels in (("none", None), ("some", some())):
        job = trainer(tmp_path / name, config, clips, "latent_action", labels)
        job.train()
        assert ("labels" in job.checkpoints.newest()[1]) == (labels is not None)
    files = [load_file(tmp_path / name / "latent_action" / "model.safetensors") for name in ("none", "some")]
    assert files[0].keys() == files[1].keys()


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (some(), some(shift=1.0), r"trained with labels [0-9a-f]{16}, this run has labels [0-9a-f]{16}; pass the same"),
        (some(), None, r"trained with labels [0-9a-f]{16}, this run has none; pass the same --labels"),
        (None, some(), r"trained with no labels, this run has labels"),
    ],
)
def test_a_stage_resumes_only_with_its_own_labels(tmp_path, config, clips, first, then, message):
    kill_after(trainer(tmp_path, config, clips, "latent_action", first, save_every=1), 4)
    with pytest.raises(UserError, match=message):
        trainer(tmp_path, config, clips, "latent_action", then).train()


def test_a_run_keeps_its_labels(tmp_path, config):
    def begin(labels: str | None):
        data = {"split": "train", "fingerprint": "x"} | ({"labels": labels, "labels_file": "l.npz"} if labels else {})
        check_run_folder(tmp_path, config, data=data)

    def store(**data):
        from genie_robotics.run_folder import save_config

        save_config(config, tmp_path, data={"split": "train", "fingerprint": "x", **data})

    store(labels="aa", labels_file="l.npz")
    begin("aa")
    for other in ("bb", None):
        with pytest.raises(
            UserError, match=rf"\(labels: aa, of l.npz / {other or 'none'}\); pass its options to resume"
        ):
            begin(other)
    store()
    begin(None)
    begin("aa")  # only the tokenizer is trained, without labels
    (tmp_path / "state" / "latent_action").mkdir(parents=True)
    with pytest.raises(UserError, match=r"\(labels: none / aa\)"):
        begin("aa")


# Mistakes are one line


def wrong(episode=(0,), step=(0,), split="train", fingerprint=None) -> Labels:
    return Labels(split, np.array(episode), np.array(step), np.zeros((len(step), 2)), fingerprint)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (wrong(split="test"), "l.npz labels split 'test', not 'train'"),
        (wrong(episode=[300]), r"row 0 labels episode 300; split 'train' has episodes 0 .. 299"),
        (wrong(step=[8]), r"row 0 labels step 8 of episode 0, which has steps 0 .. 7"),
        (wrong(episode=[2, 1, 2], step=[4, 4, 4]), "labels step 4 of episode 2 twice"),
        (wrong(fingerprint="two-squares-1"), "drawn from other video, or with another --include"),
    ],
)
def test_labels_of_other_video_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        check_places(labels, MOVERS, "l.npz")


def test_right_labels_pass_also_with_a_cache_of_their_video(tmp_path):
    labels = MOVERS.labels(5)
    check_places(labels, MOVERS, "l.npz")
    labels = Labels("train", labels.episode, labels.step, labels.action, MOVERS.fingerprint)
    check_places(labels, MOVERS, "l.npz")
    check_places(labels, build_frame_cache(MOVERS, tmp_path / "cache", (SIZE, SIZE), progress=False), "l.npz")


def test_a_label_is_of_one_step():
    with pytest.raises(UserError, match="3 frames apart, but a label is of the step"):
        LabeledWindows(ClipDataset(MOVERS, 3, gap=1.0), MOVERS.labels(5), 0, history=False)
    short = TwoSquares(2)
    short.num_frames = np.array([LENGTH, 4])
    clips = ClipDataset(short, 5)
    labels = Labels("train", np.array([0, 1]), np.array([3, 1]), np.zeros((2, 2)))
    assert LabeledWindows(clips, labels, 0, history=True).num_left_out == 1
    assert LabeledWindows(clips, labels, 0, history=False).num_left_out == 0
    with pytest.raises(UserError, match="all labels are of episodes shorter than a clip of 5 frames"):
        LabeledWindows(clips, Labels("train", np.array([1]), np.array([1]), np.zeros((1, 2))), 0, history=True)


def test_the_command_line_with_labels(tmp_path, capsys):
    """Train, train again, then without and with other labels; and files that are no labels."""
    squares = Squares()
    build_frame_cache(squares, tmp_path / "data" / "train", (16, 16), progress=False)
    labels = tmp_path / "labels.npz"
    some().save(labels)
    command = [
        "train",
        str(tmp_path / "run"),
        "--data",
        str(tmp_path / "data"),
        "--steps=3",
        "--device=cpu",
        *tiny_options(),
    ]

    def refused(*more: str) -> str:
        assert main([*command, *more]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        return lines[0]

    assert "nothing.npz is not a labels file" in refused("--labels", str(tmp_path / "nothing.npz"))
    for name, bad in (("places", wrong(episode=[77])), ("other", wrong(fingerprint="other"))):
        bad.save(tmp_path / f"{name}.npz")
        assert f"{name}.npz" in refused("--labels", str(tmp_path / f"{name}.npz"))
    assert "--training.labels.weight" in refused("--labels", str(labels), "--training.labels.weight=-1")
    assert "--training.labels.batch-size" in refused("--labels", str(labels), "--training.labels.batch-size=0")
    assert "has actions of 3 numbers" in refused("--labels", str(labels), "--training.labels.columns", "0", "3")
    assert not (tmp_path / "run").exists()

    given = [*command, "--labels", str(labels)]
    assert main(given) == 0
    assert f"labels: 20 transitions of {labels}, {some().digest}" in capsys.readouterr().out
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["data"]["labels"] == some().digest
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert {line["stage"] for line in lines if "label_error" in line} == {"latent_action"}
    assert main(given) == 0
    said = capsys.readouterr().out
    assert said.count("already trained") == 3
    assert "will not end as it would have" not in said
    assert "(labels: " in refused("--labels", str(labels), "--training.labels.columns", "0", "1")
    assert "(labels: " in refused()
    some(shift=1.0).save(tmp_path / "more.npz")
    assert "(labels: " in refused("--labels", str(tmp_path / "more.npz"))

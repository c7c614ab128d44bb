"""A tokenizer with a reference keeps any picture, stays causal, and dreams the same with and without a cache."""

import dataclasses

import numpy as np
import pytest
import torch

from genie_datasets.base.errors import UserError
from genie_datasets.clips.dataset import ClipDataset
from genie_datasets.clips.references import ReferencedClips
from genie_robotics.benchmarks.training import StepBench
from genie_robotics.estimate.memory import pass_bytes
from genie_robotics.genie import Genie
from genie_robotics.health.measures import bits_share, without_kept
from genie_robotics.models.config import GenieConfig
from genie_robotics.training.config import LoopConfig, TrainingConfig
from genie_robotics.training.distributed import set_up
from genie_robotics.training.trainer import Trainer
from tests.genie_datasets.test_clips_and_sampler import Numbered
from tests.genie_robotics.conftest import random_genie, tiny_config
from tests.genie_robotics.test_causality import dependence

CODES = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 3], [3, 3, 3, 3, 3, 3, 3, 3, 3], [1, 2, 1, 2, 1, 2, 1, 2, 1]])


def with_reference(**changes) -> GenieConfig:
    config = tiny_config(**changes)
    config.tokenizer.reference = "start"
    return config.resolved()


@pytest.fixture(params=["add", "prepend", "adaln"])
def genie(request) -> Genie:
    return random_genie(with_reference(action_input=request.param))


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_where_the_gate_is_closed_a_frame_is_its_reference_whatever_the_picture(genie):
    picture = noise(16, 16, 3)
    genie.tokenizer.patch_out.weight.data.zero_()
    genie.tokenizer.patch_out.bias.data.view(-1, 4)[:, 3] = 12.0
    world = genie.start(picture)
    for code in (0, 1, 2, 3) * 3:
        assert torch.equal(world.frame, picture)
        world.step(code)
    genie.tokenizer.patch_out.bias.data.view(-1, 4)[:, 3] = -12.0
    world = genie.start(picture)
    assert torch.equal(world.frame, picture), "at the start nothing has changed"
    assert (world.step(0).float() - picture.float()).abs().mean() > 20, "an open gate shows the color"


def test_unchanged_patches_have_one_token_and_show_the_reference_bit_for_bit(genie):
    """Whatever the picture: the trained gate, here open, counts only where something has changed."""
    tokenizer, size = genie.tokenizer, genie.config.tokenizer.patch_size
    codebook = tokenizer.quantizer.codebook
    codebook.copy_(0.4 * torch.nn.functional.layer_norm(codebook, codebook.shape[-1:]))
    codebook[5] = 0  # k-means puts a code on the latents of unchanged patches
    tokenizer.patch_out.bias.data.view(-1, 4)[:, 3] = -12.0
    pictures = noise(2, 1, 16, 16, 3)
    frames = pictures.repeat(1, 3, 1, 1, 1)
    frames[:, 1, :size, :size] += 100  # one patch changes a lot, and another by less than can be seen
    frames[:, 2, -1, -1] ^= 1
    tokens = genie.tokenize(frames)
    expected = torch.zeros_like(tokens, dtype=torch.bool)
    expected[:, 1, 0] = True
    assert torch.equal(tokens != 5, expected)
    shown = genie.reconstruct(frames)
    assert torch.equal(shown[:, 0], frames[:, 0])
    assert torch.equal(shown[:, 2], frames[:, 0])
    assert torch.equal(shown[:, 1, size:], frames[:, 0, size:])
    assert not torch.equal(shown[:, 1, :size, :size], frames[:, 1, :size, :size])


def test_the_tokenizer_codes_frames_one_by_one_and_reads_its_reference_for_each():
    made = random_genie(with_reference()).double()
    model, length = made.tokenizer, made.config.clip_length
    frames = torch.rand(1, length, 16, 16, 3, dtype=torch.double)
    reference = torch.rand(1, 1, 16, 16, 3, dtype=torch.double)
    latents = torch.randn(1, length, model.num_patches, model.to_latent.out_features, dtype=torch.double)
    alone = torch.eye(length, dtype=torch.bool)
    assert torch.equal(dependence(lambda x: model.latents(x, reference), frames, length), alone)
    assert torch.equal(dependence(lambda x: model.pixels(x, reference), latents, length), alone)
    for read in (lambda x: model.latents(frames, x), lambda x: model.pixels(latents, x)):
        assert dependence(read, reference, length).all()


def test_the_dynamics_reads_what_was_shown_before_each_frame_and_never_a_later_frame(frames):
    genie = random_genie(with_reference()).double()
    clips, length = frames[:1, : genie.config.clip_length], genie.config.clip_length
    before, reference = clips.double() / 255, clips[:, 0]
    patches = genie.tokenizer.patches(before)
    context = genie.tokenizer.context(clips, reference)
    assert torch.equal(context[..., : patches.shape[-1]], patches)
    assert torch.equal(context[:, 3, :, patches.shape[-1] :], patches[:, 0])
    tokens = genie.tokenize(clips)
    read = genie.tokenizer.clip_context(tokens, reference)
    shown = genie.detokenize(tokens, reference)
    assert torch.equal(read[:, 1:], genie.tokenizer.context(shown[:, :-1], reference))
    assert torch.equal(read[:, :1], genie.tokenizer.context(shown[:, :1], reference)), "the first frame is given"
    actions = torch.zeros(1, length, genie.dynamics.config.action_dim, dtype=torch.double)
    found = dependence(lambda x: genie.dynamics.logits(tokens, actions, x), read, length)
    assert torch.equal(found, torch.ones(length, length).tril().bool())


@pytest.mark.parametrize("num_prompt", [1, 4])
def test_cached_sampling_equals_recomputing_the_padded_window(genie, frames, num_prompt):
    genie = genie.double()  # 9 frames after a window of 6: it slides, and the reference stays
    dreams = [
        genie.generate(frames[:, :num_prompt], CODES, seed=3, temperature=1.0, use_cache=use_cache)
        for use_cache in (True, False)
    ]
    assert torch.equal(*dreams)


@torch.no_grad()
def test_the_dynamics_reads_the_reference_in_every_window(genie, frames):
    genie = genie.double()
    world, other = (genie.start(frames[0, 0]) for _ in range(2))
    for code in CODES[0]:
        world.step(int(code))
    assert world.state.num_generated > genie.config.clip_length, "the window slid"
    other.reference = noise(1, 16, 16, 3)
    action = genie.latent_action.quantizer.lookup(torch.tensor([1])).unsqueeze(1).double()
    masked = torch.full((1, genie.dynamics.config.num_patches), genie.dynamics.mask_token)
    state = world.state.without_caches()
    logits = [of.frame_logits(state, action)(masked) for of in (world, other)]
    assert ((logits[0] - logits[1]).abs().amax(-1) > 0).all()


def test_previews_forks_and_undo_keep_the_reference(genie, frames):
    genie = genie.double()
    world = genie.start(frames[0, 0], seed=2)
    world.step(1)
    previews, before = world.preview(), world.frame
    for code in range(4):
        fork = world.fork()
        assert torch.equal(fork.step(code), previews[code])
    world.step(2)
    world.undo()
    assert torch.equal(world.frame, before)


def test_each_clip_of_a_batch_has_its_own_reference(genie, frames):
    genie = genie.double()
    together = genie.generate(frames[:, :1], CODES, temperature=0)  # greedy: the noise depends on the place in a batch
    for row in range(len(frames)):
        alone = genie.generate(frames[row : row + 1, :1], CODES[row : row + 1], temperature=0)
        assert torch.equal(together[row : row + 1], alone)


def test_tokens_are_shown_with_the_reference_they_were_made_with(genie, frames):
    clips = frames[:, :6]
    tokens = genie.tokenize(clips)
    assert torch.equal(tokens, genie.tokenize(clips, clips[:, 0]))
    assert torch.equal(genie.detokenize(tokens, clips[:, 0]), genie.reconstruct(clips))
    other = noise(*clips[:, 0].shape)
    assert not torch.equal(genie.detokenize(tokens, other), genie.reconstruct(clips))
    with pytest.raises(UserError, match=r"pass reference=frames\[:, 0\]"):
        genie.detokenize(tokens)
    for wrong in (other[:1], other[0], other.numpy()[:, :8]):
        with pytest.raises(UserError):
            genie.detokenize(tokens, wrong)


def test_a_longer_video_has_one_reference(genie, frames):
    long = frames[:, :9]
    assert torch.equal(genie.tokenize(long)[:, 6:], genie.tokenize(long[:, 6:], long[:, 0]))


def test_token_space_needs_tokens_that_always_mean_the_same():
    config = with_reference()
    config.latent_action.frame_space = "tokens"
    with pytest.raises(UserError, match="cannot be combined"):
        config.resolved()
    config.tokenizer.reference_span = -1
    with pytest.raises(UserError, match="reference-span must be at least 0, got -1"):
        config.resolved()
    with pytest.raises(ValueError, match="none, start"):
        dataclasses.replace(config.tokenizer, reference="last")


def test_references_come_from_the_same_episode_at_most_a_span_before_the_clip(clips):
    span = 3
    referenced = ReferencedClips(clips, span)
    assert len(referenced) == len(clips)
    back = []
    for number in range(len(clips)):
        episode, ids = clips.locate(number)
        reference = referenced.reference(number, ids)
        back.append(int(ids[0]) - reference)
        item = referenced[number]
        assert torch.equal(item[1:], clips[number])
        assert torch.equal(item[0], clips.windows(np.array([episode]), np.array([[reference]]))[0, 0])
        assert torch.equal(item, referenced[number - len(clips)])
    assert set(back) == set(range(span + 1))
    assert torch.equal(referenced[[4, 1]], torch.stack([referenced[4], referenced[1]]))
    assert referenced.fingerprint not in (clips.fingerprint, ReferencedClips(clips, 4).fingerprint)


def test_a_span_counts_the_frames_of_the_clip_not_of_the_video():
    referenced = ReferencedClips(ClipDataset(Numbered([60], hz=10.0), clip_length=3, gap=0.5), span=4)
    back = set()
    for number in range(len(referenced)):
        reference, *frames = referenced[number][:, 0, 0, 1].tolist()
        assert [later - frames[0] for later in frames] == [0, 5, 10]
        back.add(frames[0] - reference)
    assert back == {0, 5, 10, 15, 20}


@pytest.mark.parametrize("stage", ["tokenizer", "dynamics", "joint"])
def test_a_resumed_stage_ends_where_an_uninterrupted_one_does(stage, clips, tmp_path):
    def trained(run, *ends):
        for end in ends:
            genie = random_genie(with_reference())
            config = TrainingConfig().stage(stage)
            config.steps, config.batch_size, config.warmup_steps, config.learning_rate = end, 4, 0, 1e-3
            config.schedule, config.decay = "wsd", 0.0
            trainer = Trainer(genie, stage, clips, config, run, set_up("cpu"), LoopConfig(quiet=True))
            trainer.train()
        return getattr(genie, part).state_dict()

    part = "tokenizer" if stage == "tokenizer" else "dynamics"
    whole, resumed = trained(tmp_path / "whole", 6), trained(tmp_path / "resumed", 3, 6)
    start = getattr(random_genie(with_reference()), part).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    moved = [name for name in whole if name in start and not torch.equal(whole[name], start[name])]
    reads = "reference_in" if stage == "tokenizer" else "context_in"
    assert any(reads in name for name in moved), "what reads the reference learns"


def test_benchmark_and_estimate_know_the_reference():
    config = with_reference()
    for stage in ("tokenizer", "latent_action", "dynamics"):
        StepBench(config, stage, 2, LoopConfig(), set_up("cpu")).step()
        assert pass_bytes(config, stage, 2, mode="frozen") > 0


def test_the_token_of_unchanged_patches_is_no_sign_of_a_collapse():
    genie = random_genie(with_reference())
    counts = torch.ones(genie.tokenizer.quantizer.num_codes)
    counts[5] = 1000
    assert torch.equal(without_kept(genie.latent_action, counts), counts)
    codebook = genie.tokenizer.quantizer.codebook.normal_()
    codebook[6] = 0  # the code of unchanged patches
    assert bits_share(without_kept(genie.tokenizer, counts)) < 0.5
    codebook[6], codebook[5] = 1, 0
    assert bits_share(without_kept(genie.tokenizer, counts)) > 0.9

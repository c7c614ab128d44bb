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
from genie_robotics.models.layers.displacement import REACH, Displacement, padded_by
from genie_robotics.training.config import LoopConfig, TrainingConfig
from genie_robotics.training.distributed import set_up
from genie_robotics.training.trainer import Trainer
from tests.genie_datasets.test_clips_and_sampler import Numbered
from tests.genie_robotics.conftest import random_genie, tiny_config

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


def mix(genie: Genie, *, before: float = 0.0, moved: float = 0.0, still: float = 0.0, color: float = 0.0) -> None:
    """Lets the tokenizer mix its four pictures with these weights, before the softmax."""
    genie.tokenizer.patch_out.weight.data.zero_()
    genie.tokenizer.patch_out.bias.data.view(-1, 7)[:, 3:] = torch.tensor([before, moved, still, color])


def displace(genie: Genie, rows: int, columns: int) -> None:
    """Lets the tokenizer take every patch from this many pixels below and to the right."""
    displacement = genie.tokenizer.displacement
    for layer in (displacement.coarse, displacement.fine):
        layer.weight.data.zero_()
        layer.bias.data.fill_(-50.0)
    coarse, fine = displacement.parts(torch.tensor([[[[rows, columns]]]]))
    displacement.coarse.bias.data[coarse] = 50.0
    shifts = displacement.fine.bias.data.view(2, -1)
    shifts[0, fine // shifts.shape[1]] = shifts[1, fine % shifts.shape[1]] = 50.0


def changes_everywhere(genie: Genie, num: int) -> torch.Tensor:
    """Tokens of a frame whose patches have all changed."""
    token = (genie.tokenizer.kept_token() + 1) % genie.tokenizer.quantizer.num_codes
    return token.expand(num, 1, genie.tokenizer.num_patches)


def test_a_frame_that_keeps_everything_is_its_reference_whatever_the_picture(genie):
    picture = noise(16, 16, 3)
    mix(genie, before=50.0)
    world = genie.start(picture)
    for code in (0, 1, 2, 3) * 3:
        assert torch.equal(world.frame, picture)
        world.step(code)
    mix(genie, color=50.0)
    world = genie.start(picture)
    assert torch.equal(world.frame, picture), "at the start nothing has changed"
    assert (world.step(0).float() - picture.float()).abs().mean() > 20


def test_what_has_moved_looks_as_it_did(genie):
    """Each patch is a copy of one that lies above and a pixel to the right, whatever the picture shows."""
    picture, up = noise(16, 16, 3), genie.tokenizer.displacement.step
    mix(genie, moved=50.0)
    displace(genie, -up, 1)
    shown = genie.detokenize(changes_everywhere(genie, 1).expand(-1, 2, -1), picture[None])[0]
    assert torch.equal(shown[0, up:, :-1], picture[:-up, 1:])
    assert torch.equal(shown[0, 0, :-1], picture[0, 1:]), "beyond the edge its pixels repeat"
    assert torch.equal(shown[1, up:, :-1], shown[0, :-up, 1:]), "the second frame moves the first"


def test_what_is_uncovered_comes_from_the_reference(genie):
    pictures = noise(2, 1, 16, 16, 3)
    mix(genie, still=50.0)
    tokens = torch.cat([changes_everywhere(genie, 2), changes_everywhere(genie, 2)], dim=1)
    assert torch.equal(genie.detokenize(tokens, pictures[:, 0]), pictures.expand(-1, 2, -1, -1, -1))


@pytest.mark.parametrize(("patch_size", "width"), [(8, 48), (4, 32), (5, 30), (1, 12)])
def test_the_search_finds_what_has_moved(patch_size, width):
    displacement = Displacement(8, patch_size, (width, width))
    reach = REACH * displacement.step
    shift = torch.tensor([min(1, reach), -min(3, reach)])
    coarse = torch.rand(3, 3, width // 4, width // 4, generator=torch.Generator().manual_seed(0))
    picture = torch.nn.functional.interpolate(coarse, (width, width), mode="bicubic").permute(0, 2, 3, 1)
    shown = padded_by(picture, reach)
    rows, columns = (slice(reach + int(by), reach + int(by) + width) for by in shift)
    moved = shown[:, :, rows, columns].permute(0, 2, 3, 1).unsqueeze(1)
    found = displacement.search(torch.cat([picture.unsqueeze(1), moved], dim=1), picture)
    assert not found.moved[:, 0].any()
    assert not found.shift[:, 0].any()
    if patch_size > 1:  # single pixels have equals
        inner = found.shift[:, 1].unflatten(1, (width // patch_size, -1))[:, 1:-1, 1:-1]
        assert torch.equal(inner, shift.expand_as(inner))
    tried = torch.cartesian_prod(torch.arange(-reach, reach + 1), torch.arange(-reach, reach + 1)).view(1, 1, -1, 2)
    coarse, fine = displacement.parts(tried)
    assert len({*zip(coarse.flatten().tolist(), fine.flatten().tolist(), strict=True)}) == tried.shape[2]
    assert coarse.max() < displacement.num_choices[0]
    assert fine.max() < displacement.num_choices[1]


def test_of_equal_patches_the_nearest_is_taken():
    picture = torch.full((1, 32, 32, 3), 0.5)
    found = Displacement(8, 8, (32, 32)).search(picture.unsqueeze(1) + 0.1, picture)
    assert not found.moved.any()
    stripes = torch.zeros(1, 32, 32, 3)
    stripes[:, :, ::4] = 1.0
    found = Displacement(8, 8, (32, 32)).search(stripes.roll(1, 2).unsqueeze(1), stripes)
    assert found.shift[0, 0].unflatten(0, (4, 4))[:, 1:-1].reshape(-1, 2).unique(dim=0).tolist() == [[0, -1]]


def test_unchanged_patches_have_one_token_and_stay_bit_for_bit(genie):
    """Whatever the picture: the trained mixture, here a new color, counts only where something has changed."""
    tokenizer, size = genie.tokenizer, genie.config.tokenizer.patch_size
    codebook = tokenizer.quantizer.codebook
    codebook.copy_(0.4 * torch.nn.functional.layer_norm(codebook, codebook.shape[-1:]))
    codebook[5] = 0  # k-means puts a code on the latents of unchanged patches
    mix(genie, color=50.0)
    pictures = noise(2, 1, 16, 16, 3)
    frames = pictures.repeat(1, 3, 1, 1, 1)
    frames[:, 1, :size, :size] += 100  # one patch changes a lot, and another by less than can be seen
    frames[:, 2, -1, -1] ^= 1
    tokens = genie.tokenize(frames)
    expected = torch.zeros_like(tokens, dtype=torch.bool)
    expected[:, 1:, 0] = True  # there and back
    assert torch.equal(tokens != 5, expected)
    shown = genie.reconstruct(frames)
    assert torch.equal(shown[:, 0], frames[:, 0])
    assert torch.equal(shown[:, 1:, size:], frames[:, :1, size:].expand(-1, 2, -1, -1, -1))
    assert not torch.equal(shown[:, 1, :size, :size], frames[:, 1, :size, :size])


def test_the_tokenizer_reads_the_frame_before_and_the_reference():
    config = with_reference().tokenizer
    model = random_genie(with_reference()).double().tokenizer
    pictures = [torch.rand(1, 1, 16, 16, 3, dtype=torch.double, requires_grad=True) for _ in range(3)]
    latents = torch.randn(1, 1, model.num_patches, config.quantizer.latent_dim, dtype=torch.double, requires_grad=True)
    shown = model.mixed(model.features(latents, *pictures[1:]), latents, *pictures[1:])[0]
    for read, inputs in ((model.changes(*pictures), pictures), (shown, [latents, *pictures[1:]])):
        for gradient in torch.autograd.grad(read.square().sum(), inputs):
            assert (gradient != 0).any()


def test_under_autocast_every_weight_learns():
    """Weights are cast for a first pass without gradients, and used again in the second."""
    model, clips = random_genie(with_reference()).tokenizer.train(), noise(2, 5, 16, 16, 3)
    norms = []
    for enabled in (False, True):
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            model(clips, clips[:, 0])[0].backward()
        assert all(weight.grad is not None for weight in model.parameters())
        norms.append(float(torch.stack([weight.grad.norm() for weight in model.parameters()]).norm()))
    assert norms[1] == pytest.approx(norms[0], rel=0.5), "bfloat16 may choose other codes"


def test_a_frame_shows_the_past_alone(genie, frames):
    """Later frames change neither tokens nor what is shown; and a clip continues a clip."""
    genie, clips = genie.double(), frames[:, :6]
    tokens, shown = genie.tokenizer.follow(clips, clips[:, 0])
    other = clips.clone()
    other[:, 4:] = 255 - other[:, 4:]
    assert torch.equal(genie.tokenizer.follow(other, clips[:, 0])[0][:, :4], tokens[:, :4])
    assert torch.equal(tokens, genie.tokenize(clips))
    assert torch.equal(shown, genie.reconstruct(clips))
    rest, later = genie.tokenizer.follow(torch.cat([shown[:, 2:3], clips[:, 3:]], dim=1), clips[:, 0])
    assert torch.equal(rest[:, 1:], tokens[:, 3:])
    assert torch.equal(later, shown[:, 2:])


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


def test_a_longer_video_is_coded_from_its_first_frame(genie, frames):
    genie, long = genie.double(), frames[:, :9]
    assert long.shape[1] > genie.config.clip_length
    tokens = genie.tokenize(long)
    assert torch.equal(tokens[:, :4], genie.tokenize(long[:, :4]))
    assert torch.equal(genie.detokenize(tokens, long[:, 0]), genie.tokenizer.follow(long, long[:, 0])[1])


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
    assert any("context" in name for name in moved), "what reads the frame before and the reference learns"


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

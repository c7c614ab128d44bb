"""Quantizers: what goes in comes out the same everywhere, codes do not die, and an interrupted run resumes exactly."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genie_datasets.base.errors import UserError
from genie_robotics.models.config import from_dict
from genie_robotics.models.distributed import step_context, updates_state
from genie_robotics.models.quantizers import (
    FSQConfig,
    Quantizer,
    QuantizerConfig,
    VectorQuantizer,
    VQConfig,
    make_quantizer,
)
from genie_robotics.models.quantizers.levels import chosen_levels, levels_of
from genie_robotics.models.quantizers.vq import k_means

DIM = 8
KINDS = {"vq": {"quantize_after_steps": 3}, "fsq": {"kind": "fsq"}}


def make(num_codes: int = 8, seed: int = 0, kind: str = "vq", levels: tuple[int, ...] = (), **vq) -> Quantizer:
    torch.manual_seed(seed)
    config = QuantizerConfig(num_codes, DIM, kind, VQConfig(**vq), FSQConfig(levels))
    return make_quantizer(config).train()


def clusters(seed: int, which: list[int], num: int = 64, noise: float = 0.1) -> Tensor:
    """Latents (num, DIM) near the unit axes named in `which` (of 2 * DIM, with signs)."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.cat([torch.eye(DIM), -torch.eye(DIM)])
    chosen = torch.tensor(which)[torch.randint(len(which), (num,), generator=generator)]
    return axes[chosen] + noise * torch.randn(num, DIM, generator=generator)


def feed(quantizer: Quantizer, steps: range, which: list[int], **kwargs) -> None:
    for step in steps:
        torch.manual_seed(step)
        quantizer(clusters(step, which, **kwargs))


def collapse(quantizer: VectorQuantizer) -> None:
    """Moves all codes but the first far away, so that the first gets every latent."""
    quantizer(clusters(0, [0]))
    quantizer.codebook[1:] = 100 + torch.randn(7, DIM)
    quantizer.ema_sum.copy_(quantizer.codebook * quantizer.ema_count.unsqueeze(-1))


def state(quantizer: Quantizer) -> dict[str, Tensor]:
    """All that a checkpoint keeps: parameters and buffers, also those of training only."""
    return {k: v.detach().clone() for k, v in [*quantizer.named_parameters(), *quantizer.named_buffers()]}


def restore(quantizer: Quantizer, stored: dict[str, Tensor]) -> Quantizer:
    for name, value in stored.items():
        owner, _, leaf = name.rpartition(".")
        found = getattr(quantizer.get_submodule(owner), leaf)
        if isinstance(found, torch.nn.Parameter):
            found.data.copy_(value)
        else:
            setattr(quantizer.get_submodule(owner), leaf, value.clone())
    return quantizer


@pytest.fixture(params=KINDS)
def quantizer(request) -> Quantizer:
    """A quantizer in use, of either kind."""
    quantizer = make(**KINDS[request.param])
    feed(quantizer, range(20), [0, 1, 2, 9, 10])
    assert quantizer.started
    return quantizer


# The interface, for every kind


def test_codes_vectors_and_lookup_agree_with_forward(quantizer):
    quantizer.eval()
    latents = clusters(99, [0, 1, 2, 3, 9, 10], noise=0.5).reshape(4, 2, 8, DIM)
    vectors, codes, _ = quantizer(latents)
    assert vectors.shape == latents.shape
    assert codes.shape == (4, 2, 8)
    assert codes.dtype == torch.long
    assert len(codes.unique()) > 3
    torch.testing.assert_close(quantizer.lookup(codes), vectors, atol=1e-6, rtol=0)
    torch.testing.assert_close(quantizer.vectors[codes], vectors, atol=1e-6, rtol=0)
    assert quantizer.vectors.shape == (8, DIM)
    assert torch.equal(quantizer.nearest(latents), codes)
    flat = latents.reshape(-1, DIM)
    assert torch.equal(quantizer.nearest(flat), codes.flatten()), "codes do not depend on the shape of the batch"


def test_vq_takes_the_nearest_vector():
    quantizer = make(**KINDS["vq"])
    feed(quantizer, range(20), [0, 1, 2, 9, 10])
    latents = quantizer.normalize(clusters(5, list(range(16))))
    by_hand = (latents[:, None] - quantizer.vectors).square().sum(-1).argmin(-1)
    assert torch.equal(quantizer.nearest(latents), by_hand)


def without_projections(num_codes: int, levels: tuple[int, ...]) -> Quantizer:
    """A finite scalar quantizer whose latents are the numbers that it rounds."""
    quantizer = make_quantizer(QuantizerConfig(num_codes, len(levels), "fsq", fsq=FSQConfig(levels)))
    with torch.no_grad():
        for linear in (quantizer.project_in, quantizer.project_out):
            linear.weight.copy_(torch.eye(len(levels)))
            linear.bias.zero_()
    return quantizer


def test_fsq_returns_to_the_cell_it_came_from():
    quantizer = without_projections(8, (2, 2, 2))
    values = quantizer.vectors
    assert values.tolist() == [[a, b, c] for c in (-1, 1) for b in (-1, 1) for a in (-1, 1)]
    assert torch.equal(quantizer.nearest_code(4 * values), torch.arange(8))


def test_the_gradient_reaches_latents_and_projections(quantizer):
    latents = clusters(7, [0, 1, 2]).requires_grad_()
    vectors, _, loss = quantizer(latents)
    (vectors * torch.arange(DIM)).sum().add(loss).backward()
    assert latents.grad.abs().sum(-1).min() > 0
    for parameter in quantizer.parameters():
        assert parameter.grad.abs().sum() > 0
    assert len(list(quantizer.parameters())) == (4 if quantizer.config.kind == "fsq" else 0)


def test_the_straight_through_gradient_of_vq_is_that_of_the_quantized_latents():
    quantizer = make(quantize_after_steps=0, commitment=0.0)
    latents = clusters(7, [0, 1, 2])
    quantizer(latents)
    normal = quantizer.normalize(latents).requires_grad_()
    vectors, _, _ = quantizer.quantize(normal, 1)
    weights = torch.randn(vectors.shape)
    (vectors * weights).sum().backward()
    torch.testing.assert_close(normal.grad, weights)


# Comparison with the library vector-quantize-pytorch


@pytest.mark.parametrize("dead_code_threshold", [0.15, 0.0])
def test_vq_computes_what_the_library_does(dead_code_threshold):
    """119 training updates in which codes die and are replaced: codes, gradients, losses, averages and vectors."""
    library = pytest.importorskip("vector_quantize_pytorch")
    quantizer = make(quantize_after_steps=0, decay=0.9, dead_code_threshold=dead_code_threshold)
    feed(quantizer, range(1), list(range(8)))
    fair_count = 96 / 8
    other = library.VectorQuantize(
        dim=DIM,
        codebook_size=8,
        decay=0.9,
        commitment_weight=quantizer.config.vq.commitment,
        threshold_ema_dead_code=dead_code_threshold * fair_count,
        rotation_trick=False,
        sync_codebook=False,
    ).train()
    other._codebook.reset_cluster_size = fair_count
    buffers = {"embed": "codebook", "embed_avg": "ema_sum", "cluster_size": "ema_count"}
    for theirs, ours in buffers.items():
        getattr(other._codebook, theirs).copy_(getattr(quantizer, ours).unsqueeze(0))
    other._codebook.initted.fill_(True)
    num_replaced = 0
    for step in range(1, 120):
        latents = quantizer.normalize(clusters(step, list(range(8)) if step < 40 else [0, 1], num=96, noise=0.3))
        results = []
        for quantize in (lambda x: quantizer.quantize(x, 1), lambda x: other(x.unsqueeze(0))):
            torch.manual_seed(step)
            x = latents.clone().requires_grad_()
            vectors, codes, loss = quantize(x)
            ((vectors * torch.arange(DIM)).sum() + loss.sum()).backward()
            results.append((vectors.reshape(-1, DIM), codes.flatten(), loss.sum(), x.grad))
        ours, theirs = results
        assert torch.equal(ours[1], theirs[1]), step
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        for name, own in buffers.items():
            torch.testing.assert_close(getattr(quantizer, own), getattr(other._codebook, name)[0], rtol=1e-3, atol=1e-4)
        num_replaced += int((quantizer.vectors[:, None] == latents).all(-1).any())
    assert (num_replaced > 3) == (dead_code_threshold > 0)


@pytest.mark.parametrize("levels", [(2, 2, 2), (8, 5, 5), (4, 4, 4, 4), (3, 7)])
def test_fsq_computes_what_the_library_does(levels):
    """Grid, codes, quantized latents and gradients, over 20 steps of an optimizer."""
    library = pytest.importorskip("vector_quantize_pytorch")
    quantizer = make(int(np.prod(levels)), kind="fsq", levels=levels)
    other = library.FSQ(list(levels), preserve_symmetry=True)
    torch.testing.assert_close(quantizer.grid, other.implicit_codebook, rtol=0, atol=1e-6)

    def theirs(x: Tensor) -> tuple[Tensor, Tensor]:
        values, codes = other(quantizer.project_in(x).unsqueeze(0))
        return quantizer.project_out(values[0]), codes[0]

    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    for step in range(20):
        latents = 2 * torch.randn(500, DIM, generator=torch.Generator().manual_seed(step))
        results = []
        for quantize in (lambda x: quantizer.quantize(x, 1)[:2], theirs):
            optimizer.zero_grad()
            x = latents.clone().requires_grad_()
            vectors, codes = quantize(x)
            (vectors - latents).square().mean().backward()
            results.append((codes.long(), vectors, x.grad, *(p.grad.clone() for p in quantizer.parameters())))
        assert len(results[0][0].unique()) > 0.5 * len(quantizer.grid)
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)
        optimizer.step()


def test_autocast_changes_nothing(quantizer):
    """In bfloat16 distances would choose other codes, and averages would stop moving."""
    other = restore(make(**KINDS[quantizer.config.kind]), state(quantizer))
    latents = clusters(3, list(range(16)), num=512, noise=0.6)
    torch.manual_seed(0)
    expected = quantizer(latents)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = other(latents)
        assert torch.equal(other.lookup(torch.arange(8)), quantizer.lookup(torch.arange(8)))
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert all(torch.equal(v, state(other)[k]) for k, v in state(quantizer).items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_quantizer_in_another_precision_still_reads_and_writes(quantizer, dtype):
    latents = clusters(11, [0, 1, 2, 3])
    expected = quantizer.nearest(latents)
    quantizer.to(dtype)
    agree = (quantizer.nearest(latents.to(dtype)) == expected).float().mean()
    assert agree > (0.999 if dtype == torch.float64 else 0.8)
    assert quantizer.lookup(expected).dtype == dtype


def test_usage_counts_the_codes_of_training_and_nothing_else(quantizer):
    quantizer.reset_usage()
    assigned = [quantizer(clusters(step, [0, 1, 2, 10]))[1] for step in (100, 101)]
    expected = torch.bincount(torch.cat(assigned), minlength=8)
    quantizer.eval()(clusters(102, [0, 1]))
    assert quantizer.usage.dtype == torch.int64
    assert torch.equal(quantizer.usage, expected)
    assert not {"usage", "share"} & set(quantizer.state_dict()), "not in the model's file"
    quantizer.reset_usage()
    assert not quantizer.usage.any()


def test_perplexity_tells_use_from_collapse(quantizer):
    quantizer.config.vq.dead_code_threshold = 0
    one = clusters(0, [0], num=1, noise=0).repeat(64, 1)
    for _ in range(400):
        quantizer(one)
    assert float(quantizer.logs()["perplexity"]) == pytest.approx(1, abs=0.01)


def test_perplexity_of_equally_used_codes_is_their_number():
    quantizer = make(16, quantize_after_steps=0)
    latents = torch.cat([torch.eye(DIM), -torch.eye(DIM)]).repeat(4, 1)
    for step in range(30):
        torch.manual_seed(step)
        quantizer(latents)
    assert float(quantizer.logs()["perplexity"]) == pytest.approx(16, rel=1e-3)


def test_a_code_counts_as_used_when_it_is_assigned_not_when_it_is_replaced():
    quantizer = make(quantize_after_steps=0)
    collapse(quantizer)
    quantizer.share.zero_()
    quantizer.ema_count[1:] = 0
    feed(quantizer, range(1), [0])
    assert quantizer.ema_count[1:].min() > 1, "all seven were replaced just now"
    assert float(quantizer.logs()["perplexity"]) == 1


# The start


def test_before_the_start_latents_pass_unquantized():
    quantizer = make(quantize_after_steps=3)
    latents = clusters(0, [0, 1])
    for _ in range(3):
        vectors, codes, loss = quantizer(latents)
        assert codes is None
        assert float(loss) == 0
        assert torch.equal(vectors, quantizer.normalize(latents))
    assert quantizer.logs() == {}
    assert quantizer.eval()(latents)[1] is None, "evaluation does not start a codebook"
    assert not quantizer.started
    assert quantizer.train()(latents)[1] is not None
    assert quantizer.recent.numel() == 0, "remembered latents are not kept"


def test_a_short_training_starts_by_its_progress():
    quantizer = make(quantize_after_steps=1000, quantize_after_fraction=0.3)
    quantizer.progress = 0.29
    assert quantizer(clusters(0, [0]))[1] is None
    quantizer.progress = 0.3
    assert quantizer(clusters(1, [0, 1]))[1] is not None


def test_the_start_finds_clusters_of_any_size():
    quantizer = make(4, quantize_after_steps=40, dead_code_threshold=0.0)
    for step in range(45):
        quantizer(torch.cat([clusters(step, [0], num=60), clusters(step, [1, 2, 3], num=4)]))
    found = quantizer.nearest(clusters(9, [0, 1, 2, 3], num=200))
    truth = clusters(9, [0, 1, 2, 3], num=200).argmax(-1)
    assert sorted(int(truth[found == code].mode().values) for code in range(4)) == [0, 1, 2, 3]


def test_few_latents_and_latents_that_are_not_finite_do_not_stop_the_start():
    few = make(64, quantize_after_steps=0)
    few(clusters(0, [0, 1], num=5))
    assert torch.isfinite(few.vectors).all()
    broken = make(quantize_after_steps=0)
    broken(torch.full((64, DIM), float("nan")))  # the trainer reports the loss that is not finite
    still = make(quantize_after_steps=0)
    for _ in range(5):
        assert torch.isfinite(still(torch.ones(64, DIM))[0]).all()


def test_k_means_does_not_depend_on_the_threads(tmp_path):
    points = np.random.default_rng(0).normal(size=(3000, DIM)).astype(np.float32)
    code = (
        "import sys, numpy as np; from genie_robotics.models.quantizers.vq import k_means\n"
        f"points = np.random.default_rng(0).normal(size=(3000, {DIM})).astype(np.float32)\n"
        "np.save(sys.argv[1], k_means(points, 16, 0)[0])"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "5"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.npy")], env=environment, check=True)
    assert np.array_equal(np.load(tmp_path / "a.npy"), k_means(points, 16, 0)[0])


def test_reset_forgets_the_codes_and_finds_new_ones(quantizer):
    quantizer.reset()
    assert not quantizer.share.any()
    assert quantizer.started == (quantizer.config.kind == "fsq")
    feed(quantizer, range(4), [3, 4, 5])
    assert quantizer.started


# Codes do not die


def test_two_clusters_end_with_all_eight_codes_in_use():
    quantizer = make(quantize_after_steps=10)
    feed(quantizer, range(300), [0, 9])
    quantizer.reset_usage()
    feed(quantizer, range(300, 340), [0, 9])
    fair = quantizer.usage.sum() / 8
    assert quantizer.usage.min() > 0.1 * fair, quantizer.usage


def test_a_collapsed_codebook_recovers():
    quantizer = make(quantize_after_steps=0)
    collapse(quantizer)
    feed(quantizer, range(400), [0, 3, 9, 12])
    quantizer.reset_usage()
    feed(quantizer, range(400, 420), [0, 3, 9, 12])
    assert (quantizer.usage > 0).all(), quantizer.usage


@pytest.mark.parametrize("dead_code_threshold", [0.15, 0.0])
def test_a_code_that_dies_after_thousands_of_updates_is_replaced_from_the_batch_or_never(dead_code_threshold):
    """Eight clusters for 2000 updates; then half of them vanish."""
    quantizer = make(quantize_after_steps=10, dead_code_threshold=dead_code_threshold)
    feed(quantizer, range(2000), [0, 1, 2, 3, 4, 5, 6, 7], num=32)
    before = quantizer.vectors.clone()
    kept = quantizer.nearest(torch.eye(DIM)[:4])
    gone = quantizer.nearest(torch.eye(DIM)[4:])
    assert len({*kept.tolist(), *gone.tolist()}) == 8
    replaced: set[int] = set()
    for step in range(2000, 2300):
        torch.manual_seed(step)
        latents = clusters(step, [0, 1, 2, 3], num=32)
        quantizer(latents)
        batch = quantizer.normalize(latents)
        on_batch = (quantizer.vectors[:, None] == batch).all(-1).any(-1).nonzero().flatten().tolist()
        replaced |= set(on_batch)
    if dead_code_threshold:
        assert set(gone.tolist()) <= replaced, "each dead code was moved exactly onto a latent of the batch"
        assert (quantizer.vectors[gone] - before[gone]).norm(dim=-1).min() > 1
        quantizer.reset_usage()
        feed(quantizer, range(2300, 2330), [0, 1, 2, 3], num=32)
        assert (quantizer.usage > 0).all(), quantizer.usage
    else:
        assert not replaced
        torch.testing.assert_close(quantizer.vectors[gone], before[gone], atol=0.02, rtol=0)
        quantizer.reset_usage()
        feed(quantizer, range(2300, 2330), [0, 1, 2, 3], num=32)
        assert not quantizer.usage[gone].any()


def test_more_dead_codes_than_latents_never_become_equal():
    quantizer = make(64, quantize_after_steps=0, dead_code_threshold=0.9)
    quantizer(clusters(0, [0], num=64))
    for step in range(40):
        torch.manual_seed(step)
        quantizer(clusters(step, list(range(8)), num=5))
        assert len(quantizer.vectors.unique(dim=0)) == 64


def test_a_dead_code_is_not_moved_onto_a_latent_that_has_a_code():
    """Most latents are 0, as those of patches that do not change."""
    quantizer = make(16, quantize_after_steps=0, dead_code_threshold=0.9)
    for step in range(60):
        torch.manual_seed(step)
        latents = clusters(step, list(range(8)), num=8).clone()
        latents[torch.rand(latents.shape[:-1]) < 0.8] = 0
        quantizer(latents)
        if step > 10:  # k-means may start with equal centers
            assert (torch.cdist(quantizer.vectors, torch.zeros(1, latents.shape[-1])) < 0.05).sum() <= 3


# Interrupted and resumed


@pytest.mark.parametrize("cut", [2, 12, 60, 120])  # before the start, after it, before and after dead codes
@pytest.mark.parametrize("kind", KINDS)
def test_saved_loaded_and_continued_equals_uninterrupted(kind, cut):
    options = KINDS[kind] | ({"decay": 0.9, "quantize_after_steps": 5} if kind == "vq" else {})
    which = {True: [0, 1, 2, 3, 4, 5, 6, 7], False: [0, 1]}  # after 50 steps most clusters vanish: codes die

    def go(quantizer: Quantizer, steps: range) -> None:
        for step in steps:
            feed(quantizer, range(step, step + 1), which[step < 50])

    whole = make(**options)
    go(whole, range(150))
    interrupted = make(**options)
    go(interrupted, range(cut))
    resumed = restore(make(seed=5, **options), state(interrupted))
    before = resumed.vectors.clone()
    go(resumed, range(cut, 150))
    assert all(torch.equal(v, state(resumed)[k]) for k, v in state(whole).items())
    if kind == "vq" and cut == 60:
        moved = (resumed.vectors - before).norm(dim=-1) > 1
        assert moved.sum() >= 3, "codes were replaced after the load"


# Micro-batches


def test_the_state_changes_once_per_step_from_the_last_micro_batch():
    """Before the start all micro-batches are remembered; afterwards all but the last are only counted."""
    quantizer, last_only = make(4, quantize_after_steps=2), make(4, quantize_after_steps=2)
    device = torch.device("cpu")
    for step in range(3):
        for number in range(2):
            with step_context(step, step, device, updates_state=number == 1):
                quantizer(clusters(2 * step + number, [0, 1, 2, 3]))
        assert quantizer.started == (step == 2)
        assert int(quantizer.num_updates) == step + 1 + quantizer.started, "the step of the start is also an update"
        assert len(quantizer.recent) == (0 if step == 2 else 128 * (step + 1))
    restore(last_only, state(quantizer))
    quantizer.reset_usage()
    for step in range(3, 30):
        before = state(quantizer)
        with step_context(step, step, device, updates_state=False):
            codes = quantizer(clusters(1000 + step, [0, 1, 2, 3]))[1]
        changed = {name for name, value in state(quantizer).items() if not torch.equal(value, before[name])}
        assert changed == {"usage"}
        assert torch.equal(quantizer.usage - before["usage"], torch.bincount(codes, minlength=4))
        for one in (quantizer, last_only):
            with step_context(step, step, device):
                one(clusters(step, [0, 1, 2, 3]))
    expected = state(last_only)
    assert all(torch.equal(v, expected[k]) for k, v in state(quantizer).items() if k != "usage")


def test_an_interrupted_micro_batch_leaves_no_trace():
    def interrupted() -> None:
        with step_context(0, 0, torch.device("cpu"), updates_state=False):
            assert not updates_state()
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert updates_state()


# Several processes

WORKER = """
import os
import sys
import torch
import torch.distributed as dist
from genie_robotics.models.quantizers import QuantizerConfig, VQConfig, make_quantizer
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.manual_seed(rank)
config = QuantizerConfig(num_codes=8, latent_dim=8, vq=VQConfig(quantize_after_steps=10, decay=0.9))
quantizer = make_quantizer(config).train()
own = 0
for step in range(120):
    torch.manual_seed(1000 * rank + step)
    center = torch.eye(8)[torch.randint(0, 2, (32,)) + 2 * rank + 4 * (step < 40)]  # each rank has its own clusters
    _, codes, _ = quantizer(center + 0.1 * torch.randn(32, 8))
    if codes is not None:
        own = own + torch.bincount(codes, minlength=8)
    if step == 10:
        start = quantizer.vectors.clone()
torch.save({"start": start, "buffers": dict(quantizer.named_buffers()), "own": own}, f"{folder}/{rank}.pt")
dist.barrier()
os._exit(0)  # gloo's threads sometimes abort the interpreter's own end
"""


def test_two_processes_keep_one_codebook(tmp_path):
    jobs = [subprocess.Popen([sys.executable, "-c", WORKER, str(rank), str(tmp_path)]) for rank in range(2)]
    try:
        assert [job.wait(300) for job in jobs] == [0, 0]
    finally:
        for job in jobs:
            job.kill()
    a, b = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(a["start"], b["start"]), "both start from the same k-means"
    for name, value in a["buffers"].items():
        if name != "recent":
            assert torch.equal(value, b["buffers"][name]), name
    assert torch.equal(a["buffers"]["usage"], a["own"] + b["own"])
    assert (a["buffers"]["usage"] > 0).all()
    assert a["own"].sum() + b["own"].sum() == 2 * 32 * 110
    # After the clusters moved (step 40), dead codes were replaced by latents of both ranks.
    near = torch.cdist(F.layer_norm(torch.eye(8)[:4], (8,)), a["buffers"]["codebook"]).amin(-1)
    assert near[:2].min() < 1, near
    assert near[2:].min() < 1, near
    assert torch.allclose(a["buffers"]["ema_count"].sum(), torch.tensor(64.0), rtol=0.2)


# Configuration


def test_levels_multiply_to_exactly_the_promised_number():
    assert levels_of(8) == (2, 2, 2)
    assert levels_of(16) == (4, 4)
    assert levels_of(64) == (4, 4, 4)
    assert levels_of(256) == (4, 4, 4, 4)
    assert levels_of(1024) == (4, 4, 4, 4, 4)
    assert levels_of(1000) == (8, 5, 5, 5)
    assert levels_of(64000) == (8, 8, 8, 5, 5, 5)
    found = {n: levels_of(n) for n in range(2, 3000) if levels_of(n)}
    assert all(np.prod(levels) == n and max(levels) <= 8 for n, levels in found.items())
    assert all(len(levels) >= 2 for n, levels in found.items() if n > 3)
    assert chosen_levels(1000, (10, 10, 10)) == (10, 10, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "fsq", "num_codes": 7}, "num_codes 7 is not a product of FSQ levels; nearest that are: 6 or 8"),
        ({"kind": "fsq", "num_codes": 1021}, "num_codes 1021 .*: 1008 or 1024"),
        ({"kind": "fsq", "num_codes": 1}, "num_codes must be at least 2, got 1"),
        (
            {"kind": "fsq", "num_codes": 1024, "fsq": {"levels": [8, 5, 5, 5]}},
            r"levels must be at least 2 each and multiply to num_codes 1024, got 8,5,5,5 \(product 1000\)",
        ),
        ({"kind": "fsq", "num_codes": 8, "fsq": {"levels": [8, 1]}}, "levels must be at least 2 each.*got 8,1"),
        ({"fsq": {"levels": [2, 2, 2]}}, "quantizer.fsq.levels needs quantizer.kind fsq"),
        ({"kind": "lfq"}, "quantizer.kind must be vq or fsq, got 'lfq'"),
        ({"vq": {"whiten": -1.0}}, "vq.whiten must be a finite number of at least 0, got -1.0"),
        ({"vq": {"decay": 1.0}}, "vq.decay must be at least 0 and below 1, got 1.0"),
        ({"vq": {"commitment": -1.0}}, "vq.commitment must be at least 0, got -1.0"),
    ],
)
def test_an_impossible_quantizer_is_one_line(options, message):
    with pytest.raises(UserError, match=f"here: {message}") as caught:
        from_dict(QuantizerConfig, options, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("levels", [(8, 5, 5), (4, 4, 4, 4), (3, 7)])
def test_every_cell_of_a_grid_can_be_reached_and_none_lies_outside(levels):
    num_codes = int(np.prod(levels))
    quantizer = without_projections(num_codes, levels)
    values = 2 * torch.randn(40 * num_codes, len(levels), generator=torch.Generator().manual_seed(0))
    codes = quantizer.nearest_code(values)
    assert len(codes.unique()) == num_codes
    assert 0 <= int(codes.min()) <= int(codes.max()) < num_codes
    assert quantizer.grid.abs().max() == 1
    extreme = torch.tensor([[1e9] * len(levels), [-1e9] * len(levels)])
    assert sorted(quantizer.nearest_code(extreme).tolist()) == [0, num_codes - 1]

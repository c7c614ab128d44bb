"""Codebooks: what goes in comes out the same everywhere, codes do not die, and a cut run goes on to the same bits."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from genie_datasets.base.errors import UserError
from genie_robotics.models.config import from_dict
from genie_robotics.models.quantizers.codebook import Codebook
from genie_robotics.models.quantizers.config import CodebookConfig
from genie_robotics.models.quantizers.fsq import chosen_levels, levels_of
from genie_robotics.models.quantizers.vq import k_means

DIM = 8
KINDS = {"vq": {"start_after": 3}, "fsq": {"kind": "fsq"}}


def make(num_codes: int = 8, seed: int = 0, **changes) -> Codebook:
    torch.manual_seed(seed)
    return Codebook(CodebookConfig(num_codes=num_codes, latent_dim=DIM, **changes)).train()


def clusters(seed: int, which: list[int], num: int = 64, noise: float = 0.1) -> Tensor:
    """Latents (num, DIM) near the unit axes named in `which` (of 2 * DIM, with signs)."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.cat([torch.eye(DIM), -torch.eye(DIM)])
    chosen = torch.tensor(which)[torch.randint(len(which), (num,), generator=generator)]
    return axes[chosen] + noise * torch.randn(num, DIM, generator=generator)


def feed(book: Codebook, steps: range, which: list[int], **kwargs) -> None:
    for step in steps:
        torch.manual_seed(step)
        book(clusters(step, which, **kwargs))


def collapse(book: Codebook) -> None:
    """All codes but the first far away, so that the first takes everything."""
    book(clusters(0, [0]))
    inner = book.vq._codebook
    inner.embed[0, 1:] = 100 + torch.randn(7, DIM)
    inner.embed_avg.copy_(inner.embed * inner.cluster_size.unsqueeze(-1))


def state(book: Codebook) -> dict[str, Tensor]:
    """All that a checkpoint keeps: parameters and buffers, those of training only too."""
    return {k: v.detach().clone() for k, v in [*book.named_parameters(), *book.named_buffers()]}


def restore(book: Codebook, stored: dict[str, Tensor]) -> Codebook:
    for name, value in stored.items():
        owner, _, leaf = name.rpartition(".")
        found = getattr(book.get_submodule(owner), leaf)
        if isinstance(found, torch.nn.Parameter):
            found.data.copy_(value)
        else:
            setattr(book.get_submodule(owner), leaf, value.clone())
    return book


@pytest.fixture(params=KINDS)
def book(request) -> Codebook:
    """A codebook in use, of either kind."""
    book = make(**KINDS[request.param])
    feed(book, range(20), [0, 1, 2, 9, 10])
    assert book.started
    return book


# What users of a codebook rely on, whatever its kind


def test_codes_vectors_and_lookup_agree_with_what_forward_gives(book):
    book.eval()
    latents = clusters(99, [0, 1, 2, 3, 9, 10], noise=0.5).reshape(4, 2, 8, DIM)
    quantised, codes, _ = book(latents)
    assert quantised.shape == latents.shape
    assert codes.shape == (4, 2, 8)
    assert codes.dtype == torch.long
    assert len(codes.unique()) > 3
    torch.testing.assert_close(book.lookup(codes), quantised, atol=1e-6, rtol=0)
    torch.testing.assert_close(book.vectors[codes], quantised, atol=1e-6, rtol=0)
    assert book.vectors.shape == (8, DIM)
    assert torch.equal(book.nearest(latents), codes)
    flat = latents.reshape(-1, DIM)
    assert torch.equal(book.nearest(flat), codes.flatten()), "codes do not depend on the shape of the batch"


def test_vq_takes_the_nearest_vector_and_fsq_comes_back_to_the_cell_it_came_from(book):
    if book.config.kind == "vq":
        latents = book.normalise(clusters(5, list(range(16))))
        by_hand = (latents[:, None] - book.vectors).square().sum(-1).argmin(-1)
        assert torch.equal(book.nearest(latents), by_hand)
    else:
        values = book.fsq.grid.implicit_codebook
        assert values.tolist() == [[a, b, c] for c in (-1, 1) for b in (-1, 1) for a in (-1, 1)]
        assert torch.equal(book.fsq.grid(4 * values.unsqueeze(0))[1][0], torch.arange(8))


def test_the_gradient_reaches_latents_and_projections(book):
    latents = clusters(7, [0, 1, 2]).requires_grad_()
    quantised, _, loss = book(latents)
    (quantised * torch.arange(DIM)).sum().add(loss).backward()
    assert latents.grad.abs().sum(-1).min() > 0
    for parameter in book.parameters():
        assert parameter.grad.abs().sum() > 0
    assert len(list(book.parameters())) == (4 if book.config.kind == "fsq" else 0)


def test_the_straight_through_gradient_of_vq_is_that_of_the_quantised_latents():
    book = make(start_after=0, commitment=0.0)
    latents = clusters(7, [0, 1, 2])
    book(latents)
    normal = book.normalise(latents).requires_grad_()
    quantised, _, _ = book.vq.quantise(normal, 1.0)
    weights = torch.randn(quantised.shape)
    (quantised * weights).sum().backward()
    torch.testing.assert_close(normal.grad, weights)


@pytest.mark.parametrize("revive_below", [0.15, 0.0])
def test_vq_does_what_the_library_does_without_its_one_hot_matrix(revive_below):
    """Step by step, through deaths and revivals: codes, gradients, losses, averages and vectors."""
    book = make(start_after=0, decay=0.9, revive_below=revive_below)
    feed(book, range(1), list(range(8)))
    library = restore(make(start_after=0, decay=0.9, revive_below=revive_below), state(book)).vq
    revived = 0
    for step in range(1, 120):
        latents = book.normalise(clusters(step, list(range(8)) if step < 40 else [0, 1], num=96, noise=0.3))
        library._codebook.threshold_ema_dead_code = revive_below * 12
        library._codebook.reset_cluster_size = 12
        results = []
        for quantise in (lambda x: book.vq.quantise(x, 1.0), lambda x: library(x.unsqueeze(0))):
            torch.manual_seed(step)
            x = latents.clone().requires_grad_()
            quantised, codes, loss = quantise(x)
            ((quantised * torch.arange(DIM)).sum() + loss.sum()).backward()
            results.append((quantised.reshape(-1, DIM), codes.flatten(), loss.sum(), x.grad))
        ours, theirs = results
        assert torch.equal(ours[1], theirs[1]), step
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        for name in ("embed", "embed_avg", "cluster_size"):
            a, b = getattr(book.vq._codebook, name), getattr(library._codebook, name)
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
        revived += int((book.vectors[:, None] == latents).all(-1).any())
    assert (revived > 3) == (revive_below > 0)


def test_autocast_changes_nothing(book):
    """Under bfloat16 the library would measure distances and keep averages in bfloat16 on a CPU."""
    other = restore(make(**KINDS[book.config.kind]), state(book))
    latents = clusters(3, list(range(16)), num=512, noise=0.6)
    torch.manual_seed(0)
    expected = book(latents)
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = other(latents)
        assert torch.equal(other.vectors, book.vectors)
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    assert all(torch.equal(v, state(other)[k]) for k, v in state(book).items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_codebook_in_another_precision_still_reads_and_writes(book, dtype):
    latents = clusters(11, [0, 1, 2, 3])
    expected = book.nearest(latents)
    book.to(dtype)
    agree = (book.nearest(latents.to(dtype)) == expected).float().mean()
    assert agree > (0.999 if dtype == torch.float64 else 0.8)
    assert book.lookup(expected).dtype == dtype


def test_usage_counts_every_code_given_out_in_training_and_nothing_else(book):
    book.reset_usage()
    given = [book(clusters(step, [0, 1, 2, 10]))[1] for step in (100, 101)]
    expected = torch.bincount(torch.cat(given), minlength=8)
    book.eval()(clusters(102, [0, 1]))
    assert book.usage.dtype == torch.int64
    assert torch.equal(book.usage, expected)
    assert not {"usage", "share"} & set(book.state_dict()), "not in the model's file"
    book.reset_usage()
    assert not book.usage.any()


def test_perplexity_tells_use_from_collapse(book):
    book.config.revive_below = 0
    one = clusters(0, [0], num=1, noise=0).repeat(64, 1)
    for _ in range(400):
        book(one)
    assert float(book.logs()["perplexity"]) == pytest.approx(1, abs=0.01)


def test_perplexity_of_codes_used_alike_is_their_number():
    book = make(16, start_after=0)
    latents = torch.cat([torch.eye(DIM), -torch.eye(DIM)]).repeat(4, 1)
    for step in range(30):
        torch.manual_seed(step)
        book(latents)
    assert float(book.logs()["perplexity"]) == pytest.approx(16, rel=1e-3)


def test_a_code_counts_as_used_when_it_is_given_out_not_when_it_is_revived():
    book = make(start_after=0)
    collapse(book)
    book.share.zero_()
    moving = book.vq._codebook.cluster_size[0]
    moving[1:] = 0
    feed(book, range(1), [0])
    assert moving[1:].min() > 1, "all seven were revived just now"
    assert float(book.logs()["perplexity"]) == 1


# The start


def test_before_the_start_latents_pass_unquantised():
    book = make(start_after=3)
    latents = clusters(0, [0, 1])
    for _ in range(3):
        quantised, codes, loss = book(latents)
        assert codes is None
        assert float(loss) == 0
        assert torch.equal(quantised, book.normalise(latents))
    assert book.logs() == {}
    assert book.eval()(latents)[1] is None, "evaluation does not start a codebook"
    assert not book.started
    assert book.train()(latents)[1] is not None
    assert book.vq.recent.numel() == 0, "what was remembered is not kept"


def test_a_short_training_starts_by_its_progress():
    book = make(start_after=1000, start_share=0.3)
    book.progress = 0.29
    assert book(clusters(0, [0]))[1] is None
    book.progress = 0.3
    assert book(clusters(1, [0, 1]))[1] is not None


def test_the_start_finds_clusters_of_any_size():
    book = make(4, start_after=40, revive_below=0.0)
    for step in range(45):
        book(torch.cat([clusters(step, [0], num=60), clusters(step, [1, 2, 3], num=4)]))
    found = book.nearest(clusters(9, [0, 1, 2, 3], num=200))
    truth = clusters(9, [0, 1, 2, 3], num=200).argmax(-1)
    assert sorted(int(truth[found == code].mode().values) for code in range(4)) == [0, 1, 2, 3]


def test_fewer_latents_than_codes_and_latents_that_are_not_numbers_do_not_stop_the_start():
    few = make(64, start_after=0)
    few(clusters(0, [0, 1], num=5))
    assert torch.isfinite(few.vectors).all()
    broken = make(start_after=0)
    broken(torch.full((64, DIM), float("nan")))  # the trainer names the loss that is not finite
    still = make(start_after=0)
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


# Codes do not die


def test_two_clusters_end_with_all_eight_codes_in_use():
    book = make(start_after=10)
    feed(book, range(300), [0, 9])
    book.reset_usage()
    feed(book, range(300, 340), [0, 9])
    fair = book.usage.sum() / 8
    assert book.usage.min() > 0.1 * fair, book.usage


def test_a_codebook_that_has_collapsed_recovers():
    book = make(start_after=0)
    collapse(book)
    feed(book, range(400), [0, 3, 9, 12])
    book.reset_usage()
    feed(book, range(400, 420), [0, 3, 9, 12])
    assert (book.usage > 0).all(), book.usage


@pytest.mark.parametrize("revive_below", [0.15, 0.0])
def test_a_code_that_dies_after_thousands_of_updates_is_revived_from_the_batch_or_never(revive_below):
    """Eight clusters for 2000 updates; then half of them vanish."""
    book = make(start_after=10, revive_below=revive_below)
    feed(book, range(2000), [0, 1, 2, 3, 4, 5, 6, 7], num=32)
    before = book.vectors.clone()
    stayed = book.nearest(torch.eye(DIM)[:4])
    gone = book.nearest(torch.eye(DIM)[4:])
    assert len({*stayed.tolist(), *gone.tolist()}) == 8
    revived: set[int] = set()
    for step in range(2000, 2300):
        torch.manual_seed(step)
        latents = clusters(step, [0, 1, 2, 3], num=32)
        book(latents)
        batch = book.normalise(latents)
        on_batch = (book.vectors[:, None] == batch).all(-1).any(-1).nonzero().flatten().tolist()
        revived |= set(on_batch)
    if revive_below:
        assert set(gone.tolist()) <= revived, "each dead code lay exactly on a latent of the batch of its revival"
        assert (book.vectors[gone] - before[gone]).norm(dim=-1).min() > 1
        book.reset_usage()
        feed(book, range(2300, 2330), [0, 1, 2, 3], num=32)
        assert (book.usage > 0).all(), book.usage
    else:
        assert not revived
        torch.testing.assert_close(book.vectors[gone], before[gone], atol=0.02, rtol=0)
        book.reset_usage()
        feed(book, range(2300, 2330), [0, 1, 2, 3], num=32)
        assert not book.usage[gone].any()


# Cut and resumed


@pytest.mark.parametrize("cut", [2, 12, 60, 120])  # while remembering, after the start, before and after revivals
@pytest.mark.parametrize("kind", KINDS)
def test_saved_loaded_and_continued_equals_uninterrupted(kind, cut):
    options = KINDS[kind] | ({"decay": 0.9, "start_after": 5} if kind == "vq" else {})
    which = {True: [0, 1, 2, 3, 4, 5, 6, 7], False: [0, 1]}  # after 50 steps most clusters vanish: codes die

    def go(book: Codebook, steps: range) -> None:
        for step in steps:
            feed(book, range(step, step + 1), which[step < 50])

    whole = make(**options)
    go(whole, range(150))
    cut_one = make(**options)
    go(cut_one, range(cut))
    resumed = restore(make(seed=5, **options), state(cut_one))
    before = resumed.vectors.clone()
    go(resumed, range(cut, 150))
    assert all(torch.equal(v, state(resumed)[k]) for k, v in state(whole).items())
    if kind == "vq" and cut == 60:
        moved = (resumed.vectors - before).norm(dim=-1) > 1
        assert moved.sum() >= 3, "codes were revived after the load"


def test_the_library_keeps_no_other_state():
    """What changes in its Python attributes in training is set anew at every step."""
    book = make(start_after=2)
    skip = {"training", "threshold_ema_dead_code", "reset_cluster_size"}

    def attributes() -> dict[str, object]:
        return {
            f"{name}.{k}": v
            for name, module in book.vq.named_modules()
            for k, v in vars(module).items()
            if not k.startswith("_") and k not in skip and isinstance(v, (int, float, str, bool, type(None), list))
        }

    before = attributes()
    feed(book, range(120), [0, 1])
    assert attributes() == before
    assert not [m for m in book.vq.modules() for v in vars(m).values() if isinstance(v, torch.Generator)]


@pytest.mark.parametrize("hold", [False, True])
def test_codes_start_and_move_with_the_last_part_as_with_the_whole_batch(hold):
    found = []
    for parts in (1, 4):
        torch.manual_seed(0)
        config = CodebookConfig(num_codes=16, latent_dim=8, start_after=3, revive_below=0.5, hold=hold)
        book = Codebook(config).train()
        for step in range(8):
            latents = torch.randn(8, 20, 8, generator=torch.Generator().manual_seed(step))
            book.begin_step()
            for number, part in enumerate(latents.chunk(parts)):
                book.more = number + 1 < parts
                torch.manual_seed(step)
                book(part)
        found.append(dict(book.named_buffers()))
    for name, value in found[0].items():
        if name not in ("usage", "share"):  # earlier parts of the step in which codes start are not counted
            assert torch.allclose(found[1][name].float(), value.float(), atol=1e-5), name


def test_a_step_that_was_cut_leaves_nothing():
    book = Codebook(CodebookConfig(num_codes=4, latent_dim=8, start_after=0)).train()
    book(torch.randn(4, 8, 8))
    book.more = True
    book(torch.randn(4, 8, 8))
    assert book.parts
    assert book.vq.parts
    book.begin_step()
    assert (book.more, book.parts, book.vq.parts) == (False, [], [])


WORKER = """
import os
import sys
import torch
import torch.distributed as dist
from genie_robotics.models.quantizers.codebook import Codebook
from genie_robotics.models.quantizers.config import CodebookConfig
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.manual_seed(rank)
book = Codebook(CodebookConfig(num_codes=8, latent_dim=8, start_after=10, decay=0.9)).train()
own = 0
for step in range(120):
    torch.manual_seed(1000 * rank + step)
    centre = torch.eye(8)[torch.randint(0, 2, (32,)) + 2 * rank + 4 * (step < 40)]  # each rank sees its own clusters
    _, codes, _ = book(centre + 0.1 * torch.randn(32, 8))
    if codes is not None:
        own = own + torch.bincount(codes, minlength=8)
    if step == 10:
        start = book.vectors.clone()
torch.save({"start": start, "buffers": dict(book.named_buffers()), "own": own}, f"{folder}/{rank}.pt")
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
    assert torch.equal(a["start"], b["start"]), "the k-means start is one for all"
    for name, value in a["buffers"].items():
        if name != "vq.recent":
            assert torch.equal(value, b["buffers"][name]), name
    assert torch.equal(a["buffers"]["usage"], a["own"] + b["own"])
    assert (a["buffers"]["usage"] > 0).all()
    assert a["own"].sum() + b["own"].sum() == 2 * 32 * 110
    # After the clusters moved (step 40), dead codes were revived onto latents of both ranks.
    near = torch.cdist(torch.nn.functional.layer_norm(torch.eye(8)[:4], (8,)), a["buffers"]["vq._codebook.embed"][0])
    near = near.amin(-1)
    assert near[:2].min() < 1, near
    assert near[2:].min() < 1, near
    assert torch.allclose(a["buffers"]["vq._codebook.cluster_size"].sum(), torch.tensor(64.0), rtol=0.2)


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
        ({"kind": "fsq", "num_codes": 7}, "num_codes 7 is no product of FSQ levels; the nearest that are: 6 or 8"),
        ({"kind": "fsq", "num_codes": 1021}, "num_codes 1021 .*: 1008 or 1024"),
        ({"kind": "fsq", "num_codes": 1}, "num_codes must be at least 2"),
        (
            {"kind": "fsq", "num_codes": 1024, "levels": [8, 5, 5, 5]},
            "levels 8,5,5,5 make 1000 codes, not num_codes 1024",
        ),
        ({"kind": "fsq", "num_codes": 8, "levels": [8, 1]}, "levels 8,1 make 8 codes.*each is at least 2"),
        ({"levels": [2, 2, 2]}, "levels are for kind fsq"),
        ({"kind": "lfq"}, "kind must be vq or fsq, not 'lfq'"),
    ],
)
def test_an_impossible_codebook_is_named_in_one_line(options, message):
    with pytest.raises(UserError, match=f"here: {message}") as caught:
        from_dict(CodebookConfig, options, "here")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("levels", [(8, 5, 5), (4, 4, 4, 4), (3, 7)])
def test_every_cell_of_a_grid_can_be_reached_and_none_lies_outside(levels):
    num_codes = int(np.prod(levels))
    book = make(num_codes, kind="fsq", levels=levels)
    values = torch.randn(40 * num_codes, len(levels)) * 2
    codes = book.fsq.grid(values.unsqueeze(0))[1]
    assert len(codes.unique()) == num_codes
    assert 0 <= int(codes.min()) <= int(codes.max()) < num_codes
    assert book.fsq.grid.implicit_codebook.abs().max() == 1
    extreme = torch.tensor([[[1e9] * len(levels), [-1e9] * len(levels)]])
    assert sorted(book.fsq.grid(extreme)[1].flatten().tolist()) == [0, num_codes - 1]

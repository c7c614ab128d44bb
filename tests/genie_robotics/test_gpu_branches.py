"""Fused attention and compiled blocks, as chosen on a GPU, give the same losses and gradients on the CPU."""

import pytest
import torch

from genie_datasets import UserError
from genie_robotics.benchmarks.training import StepBench
from genie_robotics.models import inference, sampling
from genie_robotics.models.config import COMPONENTS
from genie_robotics.models.layers import attention
from genie_robotics.models.layers.attention import attention_by
from genie_robotics.models.precision import inference_autocast
from genie_robotics.models.quantizers.vq import VectorQuantizer
from genie_robotics.training.config import LoopConfig
from genie_robotics.training.distributed import set_up
from tests.genie_robotics.conftest import Squares, random_genie, tiny_config


def step(config, stage, kind, compiled=False):
    """(loss, gradients) of one step from the same weights, clips and masks."""
    torch.manual_seed(0)
    bench = StepBench(config, stage, 2, LoopConfig(compile="yes" if compiled else "no"), set_up("cpu", "float32"))
    torch.manual_seed(1)
    with attention_by(kind):
        loss, _ = bench.component(*bench.batch)
        loss.backward()
    return loss.detach(), {name: p.grad for name, p in bench.component.named_parameters() if p.grad is not None}


def assert_same(one, other):
    assert torch.allclose(one[0], other[0], rtol=1e-5)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        assert (other[1][name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, name


@pytest.fixture
def fused_calls(monkeypatch):
    calls = []
    fused = attention.fused_attention
    monkeypatch.setattr(attention, "fused_attention", lambda *args: calls.append(1) or fused(*args))
    return calls


@pytest.mark.parametrize("stage", COMPONENTS)
def test_fused_and_plain_attention_learn_the_same(stage, config, fused_calls):
    plain = step(config, stage, "plain")
    assert not fused_calls
    fused = step(config, stage, "fused")
    assert fused_calls
    assert_same(plain, fused)


def test_by_itself_the_cpu_trains_plain_and_dreams_fused(config, fused_calls):
    step(config, "dynamics", None)
    assert not fused_calls
    with torch.no_grad():
        step_only = StepBench(config, "dynamics", 1, LoopConfig(), set_up("cpu", "float32"))
        step_only.component.eval()(*step_only.batch)
    assert fused_calls


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fused", "plain"])
def test_compiled_blocks_learn_the_same(kind, config):
    assert_same(step(config, "dynamics", kind), step(config, "dynamics", kind, compiled=True))


def test_the_bench_takes_the_choice(monkeypatch, capsys):
    from genie_robotics.benchmarks import training
    from genie_robotics.benchmarks.commands import bench

    seen = []
    monkeypatch.setattr(training, "bench_train", lambda *args: seen.append(attention._forced) or {"matmul_share": 0.5})
    for kind in ("fused", "plain", "auto"):
        assert bench(["train", "--attention", kind, "--json"]) == 0
    assert seen == ["fused", "plain", None]
    assert attention._forced is None


@pytest.mark.parametrize("native", [True, False])
def test_video_is_read_in_bfloat16_on_a_gpu_that_has_it(native, see_gpus, monkeypatch):
    see_gpus(1, 0)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert inference_autocast(torch.device("cuda"))._enabled == native
    assert not inference_autocast(torch.device("cpu"))._enabled


def test_in_bfloat16_the_quantizers_stay_in_float32(monkeypatch):
    genie = random_genie(tiny_config())
    frames = Squares().video[:, :8]
    codes, latents, tokens = genie.infer_actions(frames), genie.embed_actions(frames), genie.tokenize(frames)
    monkeypatch.setattr(inference, "inference_autocast", lambda _: torch.autocast("cpu", torch.bfloat16))
    seen, nearest = [], VectorQuantizer.nearest_code
    monkeypatch.setattr(VectorQuantizer, "nearest_code", lambda book, x: seen.append(x.dtype) or nearest(book, x))
    assert (genie.infer_actions(frames) == codes).double().mean() > 0.9
    assert (genie.tokenize(frames) == tokens).double().mean() > 0.9
    assert set(seen) == {torch.float32}
    found = genie.embed_actions(frames)
    assert found.dtype == torch.float32
    assert 0 < (found - latents).abs().max() < 0.2


def test_in_bfloat16_dreams_cache_bfloat16_and_choose_tokens_in_float32(monkeypatch):
    genie = random_genie(tiny_config())
    frames = Squares().video[:, :2]
    codes = [1] * len(frames)
    expected = genie.start(frames)
    expected.step(codes)
    monkeypatch.setattr(inference, "inference_autocast", lambda _: torch.autocast("cpu", torch.bfloat16))
    seen, choose = [], sampling.choose
    monkeypatch.setattr(sampling, "choose", lambda logits, *rest: seen.append(logits.dtype) or choose(logits, *rest))
    world = genie.start(frames)
    for _ in range(6):  # slides
        world.step(codes)
    assert world.state.dynamics_cache.buffers.keys[0].dtype == torch.bfloat16
    assert set(seen) == {torch.float32}
    first = world.states[1].tokens[:, -1]
    assert (first == expected.state.tokens[:, -1]).double().mean() > 0.8


@pytest.fixture
def see_gpus(monkeypatch):
    """see_gpus(number, local) -> the list of devices that are then taken."""

    def see(number, local):
        taken = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.cuda, "set_device", taken.append)
        monkeypatch.setenv("LOCAL_RANK", str(local))
        return taken

    return see


@pytest.mark.parametrize(
    ("asked", "local", "gpus", "chosen"),
    [("auto", 0, 1, "cuda:0"), ("cuda", 0, 1, "cuda:0"), ("cuda", 3, 8, "cuda:3"), ("auto", 3, 8, "cuda:3"),
     ("cuda:1", 0, 2, "cuda:1"), ("auto", 3, 1, "cuda:0"), ("cuda:0", 3, 1, "cuda:0")],
)  # fmt: skip
def test_each_process_takes_the_gpu_of_its_number(asked, local, gpus, chosen, see_gpus, monkeypatch):
    taken = see_gpus(gpus, local)
    if gpus == 1:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", str(local))  # each process is shown its own
    assert set_up(asked, "float32").device == torch.device(chosen)
    assert taken == [torch.device(chosen)], "torch takes none without a number"


@pytest.mark.parametrize(
    ("asked", "local", "processes", "words"),
    [("cuda", 2, 1, "torch sees 2 GPU.s. on this machine; start at most"), ("cuda:5", 0, 1, "torch sees 2 GPU.s. on"),
     ("cuda:0", 1, 2, "would put all processes on one GPU; pass --device cuda")],
)  # fmt: skip
def test_a_missing_or_shared_gpu_is_one_line(asked, local, processes, words, see_gpus, monkeypatch):
    see_gpus(2, local)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with pytest.raises(UserError, match=words):
        set_up(asked, "float32")

"""Muon against torch's, and the precision in which it computes."""

import pytest
import torch
from torch import nn

from genie_robotics.models import precision
from genie_robotics.models.layers.st_transformer import STTransformer
from genie_robotics.models.precision import cpu_has_bfloat16, native_precision
from genie_robotics.training.config import StageConfig
from genie_robotics.training.muon import Muon, orthogonalized
from genie_robotics.training.optimizer import Optimizers

SHAPES = [(24, 8), (8, 24), (24, 8), (16, 16), (8, 24)]


def trained(make, steps=6):
    generator = torch.Generator().manual_seed(0)
    matrices = [nn.Parameter(torch.randn(*shape, generator=generator)) for shape in SHAPES]
    optimizer = make(matrices)
    for step in range(steps):
        for number, matrix in enumerate(matrices):
            matrix.grad = torch.randn(matrix.shape, generator=generator)
            if (step, number) == (2, 1):
                matrix.grad = None  # a matrix without a gradient stays, and so does its momentum
        optimizer.step()
    return matrices, optimizer


def test_in_bfloat16_it_is_torchs_muon():
    def theirs(matrices):
        return torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1)

    def ours(matrices):
        return Muon(matrices, 0.02, 0.1, torch.bfloat16)

    (expected, torchs), (found, own) = trained(theirs), trained(ours)
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(torchs.state[a]["momentum_buffer"], own.state[b]["momentum_buffer"])
        torch.testing.assert_close(b, a, rtol=0, atol=2e-3)  # a product of several matrices may round differently


def test_it_continues_a_checkpoint_of_torchs_muon():
    _, torchs = trained(lambda matrices: torch.optim.Muon(matrices, lr=0.02))
    own = Muon([nn.Parameter(torch.zeros(shape)) for shape in SHAPES], 0.02, 0.1)
    own.load_state_dict(torchs.state_dict())
    loaded = [own.state[p]["momentum_buffer"] for group in own.param_groups for p in group["params"]]
    stored = [state["momentum_buffer"] for state in torchs.state_dict()["state"].values()]
    assert all(torch.equal(a, b) for a, b in zip(loaded, stored, strict=True))


def test_in_float32_it_takes_the_same_way():
    exact, _ = trained(lambda matrices: Muon(matrices, 0.02, 0.0, torch.float64))
    start, _ = trained(lambda matrices: Muon(matrices, 0.0, 0.0))
    for dtype, share in ((torch.float32, 1e-4), (torch.bfloat16, 0.1)):
        found, _ = trained(lambda matrices, dtype=dtype: Muon(matrices, 0.02, 0.0, dtype))
        for begun, a, b in zip(start, exact, found, strict=True):
            assert (a - b).norm() < share * (a - begun).norm(), dtype


@pytest.mark.parametrize("shape", [(3, 12, 5), (3, 5, 12), (1, 6, 6)])
def test_singular_values_become_about_one(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonalized(matrices)
    values = torch.linalg.svdvals(found)
    assert (values > 0.6).all()
    assert (values < 1.3).all()
    turned = u.mT @ found @ v.mT  # diagonal: it moves singular values and turns nothing
    assert (turned - turned.diagonal(dim1=-2, dim2=-1).diag_embed()).abs().max() < 1e-9


@pytest.mark.parametrize(
    ("capabilities", "onednn", "expected"),
    [
        ({"avx512_f": True, "avx512_vnni": True}, True, False),  # oneDNN alone would say yes
        ({"avx512_f": True, "avx512_bf16": True}, True, True),
        ({"amx_bf16": True, "avx512_bf16": True}, True, True),
        ({"amx_bf16": True}, False, False),  # ONEDNN_MAX_CPU_ISA=AVX2
        ({"avx2": True}, False, False),
        ({"neon": True, "bf16": True}, True, True),
        ({"neon": True}, True, False),
    ],
)
def test_bfloat16_of_a_cpu_is_what_its_instructions_say(monkeypatch, capabilities, onednn, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(precision, "onednn_takes_bfloat16", lambda: onednn)
    assert cpu_has_bfloat16() is expected
    assert native_precision(torch.device("cpu")) == (torch.bfloat16 if expected else torch.float32)


def test_bfloat16_of_a_gpu_is_not_the_emulated_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert native_precision(torch.device("cuda")) == torch.float32


def stepped(finite: list[bool | None]) -> tuple[list, list]:
    """Weights and moments after steps of AdamW and Muon, with a gradient of nan where `finite` says False."""
    torch.manual_seed(0)
    model = STTransformer(16, 1, 2, 4, 3)
    optimizers = Optimizers(model, StageConfig(learning_rate=0.01, muon_learning_rate=0.01))
    assert len(optimizers.optimizers) == 2
    for number, good in enumerate(finite):
        model(torch.randn(1, 3, 4, 16, generator=torch.Generator().manual_seed(number))).square().mean().backward()
        if good is False:
            for parameter in model.parameters():
                parameter.grad.fill_(torch.nan)
        optimizers.step(0.5, None if good is None else torch.tensor(good))
    moments = [value for part in optimizers.optimizers for state in part.state.values() for value in state.values()]
    return list(model.parameters()), moments


def test_a_step_that_is_not_finite_leaves_weights_and_moments():
    for kept, skipped in zip(stepped([True, True]), stepped([True, True, False]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(kept, skipped, strict=True))


def test_a_finite_step_is_the_ordinary_one():
    for plain, asked in zip(stepped([None, None]), stepped([True, True]), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(plain, asked, strict=True))

"""A training step asks the device nothing and compiles as one graph, so that a GPU never waits for Python.

Without a GPU this can be counted, not timed: operations whose result the CPU must see before it can go on.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from genie_robotics.models.config import COMPONENTS
from genie_robotics.training.stages import MODES
from tests.genie_robotics.conftest import random_genie, tiny_config
from tests.genie_robotics.test_training import trainer

WAITS = {"_local_scalar_dense", "nonzero", "nonzero_static", "masked_select", "unique_consecutive", "_unique2", "equal"}


class Waits(TorchDispatchMode):
    """Counts operations for which the CPU would wait for a GPU, by name."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITS or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


STAGES = [*((name, "frozen") for name in COMPONENTS), *(("joint", mode) for mode in MODES if "joint" in MODES[mode])]


@pytest.mark.parametrize("codes", ["learned", "frozen"])
@pytest.mark.parametrize(("stage", "mode"), STAGES)
def test_a_training_step_waits_for_nothing(tmp_path, config, clips, stage, mode, codes):
    if codes == "frozen":
        config.latent_action.quantizer.vq.freeze_after_init = mode == "frozen"
    for part in (config.tokenizer, config.latent_action):
        part.quantizer.vq.dead_code_threshold = 2.0  # codes are replaced in every step
    job = trainer(tmp_path, config, clips, stage, mode=mode, ema=0.9)
    job.train()  # the codes have started
    assert all(quantizer.started for quantizer in job.quantizers)
    job.module.train()
    frames = next(job.loader())
    with Waits() as waits:
        job.train_step(job.module, frames)
    assert waits.found == []


def test_the_count_sees_what_would_wait():
    x = torch.randn(4)
    with Waits() as waits:
        x[x > 0]
        x[x > 0] = 0
        x.nonzero()
        bool(x.any())
    assert len(waits.found) >= 4


def test_a_step_of_a_dream_waits_for_nothing(frames):
    genie = random_genie(tiny_config())
    world = genie.start(frames[:, :2])
    world.step(1)
    with Waits() as waits:
        world._advance(world.state, torch.tensor([1, 2, 3]))
    assert waits.found == []


SLOW = pytest.mark.slow  # 5 to 10 s each; joint-cotrain runs their code too


@pytest.mark.parametrize(
    ("stage", "mode"), [stage if stage[1] == "cotrain" else pytest.param(*stage, marks=SLOW) for stage in STAGES]
)
def test_a_stage_compiles_as_one_graph(tmp_path, config, clips, stage, mode):
    job = trainer(tmp_path, config, clips, stage, mode=mode)
    job.train()
    job.module.train()
    for quantizer in job.quantizers:
        quantizer.prepare_step(1.0)
    torch._dynamo.reset()
    found = torch._dynamo.explain(job.module)(next(job.loader()))
    assert found.graph_break_count == 0, found.break_reasons
    assert found.graph_count == 1

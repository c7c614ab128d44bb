"""Benchmarks: the counted operations agree with torch's counter; no times are asserted."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from genie_robotics.estimate.flops import forward_flops
from genie_robotics.genie import Genie
from genie_robotics.models.config import COMPONENTS
from genie_robotics.models.dynamics import DynamicsBatch
from genie_robotics.models.presets import preset


@pytest.mark.parametrize("stage", COMPONENTS)
def test_counted_flops_agree_with_torch(stage):
    config = preset("nano")
    config.clip_length = 8
    genie = Genie(config)
    component = getattr(genie, stage).eval()
    frames = torch.randint(0, 256, (1, 8, 64, 64, 3), dtype=torch.uint8)
    batch = DynamicsBatch(torch.zeros(1, 8, 64, dtype=torch.long), torch.zeros(1, 7, 32))
    for part in (genie.tokenizer, genie.latent_action):
        part.quantizer.has_started.fill_(True)
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        component(batch if stage == "dynamics" else frames)
    assert forward_flops(genie, stage) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_labeling_is_compared_with_one_call_per_transition(tabletop_rlds):
    from genie_robotics.benchmarks.labeling import bench_label

    result = bench_label("nano-tabletop", str(tabletop_rlds))
    assert result["naive"] == 1
    assert all(value > 0 for value in result.values())

"""A latent action model learns the shifts of a moving square and assigns each to the right step.

A square jumps up, down, left or right by 4 pixels; 4 codes must come to mean these 4 shifts, wherever the square is,
and the code at t must be the shift from t to t+1.
"""

import numpy as np
import pytest
import torch

from genie_robotics.models.latent_action import LatentActionConfig, LatentActionModel
from genie_robotics.models.quantizers import QuantizerConfig, VQConfig
from genie_robotics.training.config import StageConfig
from genie_robotics.training.optimizer import Optimizers, rate_at

SHIFTS = np.array([(0, 4), (0, -4), (4, 0), (-4, 0)])
SIZE, SQUARE, LENGTH = 32, 12, 6
LOW, HIGH = 10, 18  # range of the square's corner before a jump


def movers(num: int, length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (num, length, SIZE, SIZE, 3) uint8 and the shift (num, length-1) from each frame to the next.

    Longer walks stay where training has been: only jumps that keep the corner in [LOW, HIGH) are drawn.
    """
    rng = np.random.default_rng(seed)
    frames = np.empty((num, length, SIZE, SIZE, 3), np.uint8)
    frames[:] = rng.integers(60, 180, (num, 1, 1, 1, 3))
    shifts = np.zeros((num, length - 1), int)
    for clip, shift in zip(frames, shifts, strict=True):
        corner = rng.integers(LOW, HIGH, 2)
        for t, frame in enumerate(clip):
            frame[corner[0] : corner[0] + SQUARE, corner[1] : corner[1] + SQUARE] = 250
            if t < length - 1:
                inside = [
                    k
                    for k in range(4)
                    if length == 2 or ((corner + SHIFTS[k] >= LOW) & (corner + SHIFTS[k] < HIGH)).all()
                ]
                shift[t] = rng.choice(inside)
                corner = corner + SHIFTS[shift[t]]
    return torch.from_numpy(frames), torch.from_numpy(shifts)


@pytest.fixture(scope="module")
def trained() -> LatentActionModel:
    torch.manual_seed(0)
    model = LatentActionModel(
        LatentActionConfig(
            image_size=(SIZE, SIZE),
            clip_length=LENGTH,
            patch_size=16,
            width=48,
            encoder_num_blocks=1,
            decoder_num_blocks=1,
            num_heads=2,
            encoder_history=False,
            decoder_history=False,
            action_input="adaln",
            quantizer=QuantizerConfig(num_codes=4, latent_dim=8, vq=VQConfig(quantize_after_steps=150)),
        )
    )
    schedule = StageConfig(
        steps=400, learning_rate=3e-3, muon_learning_rate=0.02, beta2=0.95, warmup_steps=10, decay=0.4
    )
    optimizers = Optimizers(model, schedule)
    clips, _ = movers(512, 2, seed=1)
    for step in range(schedule.steps):
        torch.manual_seed(step)
        loss, _ = model(clips[torch.randint(0, len(clips), (40,))])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimizers.parameters, 1.0)
        optimizers.step(rate_at(step / schedule.steps, step, schedule))
    return model.eval()


def agreement(codes: torch.Tensor, shifts: torch.Tensor) -> float:
    """Fraction of the transitions that are the most frequent shift of their code."""
    table = torch.zeros(4, 4)
    for code, shift in zip(codes.flatten(), shifts.flatten(), strict=True):
        table[code, shift] += 1
    return float(table.amax(1).sum() / table.sum())


def test_every_shift_gets_its_own_code(trained):
    clips, shifts = movers(200, 2, seed=2)
    codes = trained.encode(clips)
    assert agreement(codes, shifts) > 0.95
    meaning = {int(code): int(shifts[codes == code].mode().values) for code in codes.unique()}
    assert sorted(meaning.values()) == [0, 1, 2, 3], meaning


def test_code_t_is_the_shift_from_t_to_t_plus_1_and_not_its_neighbors(trained):
    clips, shifts = movers(64, LENGTH, seed=3)
    codes = trained.encode(clips)
    assert agreement(codes, shifts) > 0.95
    assert agreement(codes[:, 1:], shifts[:, :-1]) < 0.75, "a code must not tell the previous shift"
    assert agreement(codes[:, :-1], shifts[:, 1:]) < 0.75, "a code must not tell the next shift"


def test_the_code_decides_what_is_predicted(trained):
    """Playing the code of another shift moves the square that way."""
    clips, shifts = movers(64, 2, seed=4)
    frames = clips.float() / 255
    codes = trained.encode(clips)
    code_of = [int(codes[shifts == shift].mode().values) for shift in range(4)]
    start = frames[:, :1]
    for shift, code in enumerate(code_of):
        action = trained.quantizer.lookup(torch.full((len(clips), 1), code))
        with torch.no_grad():
            predicted = trained.predict(start, action)[:, 0]
        errors = [
            float((predicted - torch.roll(start[:, 0], tuple(int(s) for s in other), dims=(1, 2))).square().mean())
            for other in SHIFTS
        ]
        assert int(np.argmin(errors)) == shift, errors

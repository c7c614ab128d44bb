"""Frames larger than the model's: its frame enlarged, with the start picture's fine detail where the picture is kept.

A tokenizer with a reference gives a gate with each frame: 1 keeps the reference's pixel, 0 takes a new color. The same
gate says where the detail of the sharp picture still holds. So a pixel that the model keeps is the picture's own pixel,
at any size, and what has moved is as coarse as the model.
"""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from genie_datasets.base.errors import UserError
from genie_robotics.models.inputs import shown

MAX_SIDE = 1024  # pixels


def display_size(display: Any, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of displayed frames.

    display: (height, width) with the model's proportions, or the shorter side; None: the model's `size`.

    Raises:
        UserError: another type, smaller than the model's size, larger than MAX_SIDE, or of other proportions.
    """
    if display is None:
        return size
    short = min(size)
    sides = tuple(display) if isinstance(display, tuple | list) else None
    if sides is None and isinstance(display, int) and not isinstance(display, bool):
        sides = tuple(round(display * side / short) for side in size)
    right = sides is not None and len(sides) == 2 and all(type(side) is int for side in sides)
    if right and sides is not None:
        height, width = sides
        same = abs(height * size[1] - width * size[0]) < max(size)  # within one pixel
        if same and all(least <= side <= MAX_SIDE for least, side in zip(size, sides, strict=True)):
            return height, width
    raise UserError(
        f"display must be the shorter side of {short} .. {MAX_SIDE * short // max(size)} pixels, or (height, width) "
        f"with the proportions of the model's {size[0]}x{size[1]}, got {shown(display)}; pass display={4 * short}"
    )


class Display:
    """Enlarges the frames of a batch of dreams.

    size: height and width of displayed frames.
    sharp: the start pictures at this size; None if no larger ones are known, and frames are only enlarged.
    reference: the start pictures at the model's size.
    """

    def __init__(
        self, size: tuple[int, int], sharp: UInt8[Tensor, "B H2 W2 3"] | None, reference: UInt8[Tensor, "B H W 3"]
    ):
        self.size = size
        self.detail = None if sharp is None else sharp.float() - self.enlarge(reference)

    def enlarge(self, frames: Tensor) -> Float[Tensor, "B H2 W2 C"]:
        """Frames (B, H, W, C) at the displayed size, bilinear."""
        planes = frames.permute(0, 3, 1, 2).float()
        return functional.interpolate(planes, self.size, mode="bilinear").permute(0, 2, 3, 1)

    def show(self, frame: UInt8[Tensor, "B H W 3"], gate: UInt8[Tensor, "B H W"] | None) -> UInt8[Tensor, "B H2 W2 3"]:
        """Frames at the displayed size; gate: 255 where a pixel is the reference's, None without a reference."""
        if tuple(frame.shape[1:3]) == self.size:
            return frame
        enlarged = self.enlarge(frame)
        if self.detail is not None and gate is not None:
            kept = self.enlarge(gate.unsqueeze(-1)) / 255
            # Squared, because a new color that is mixed with a little of the reference would show its outlines.
            enlarged = torch.addcmul(enlarged, kept.square(), self.detail)
        return enlarged.round_().clamp_(0, 255).to(torch.uint8).contiguous()

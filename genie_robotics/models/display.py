"""Frames larger than the model's: its frame enlarged, with the start picture's fine detail where the picture is kept.

A tokenizer with a reference says from where in the start picture each pixel comes, if it is not a new color. The detail
of the sharp picture is taken from the same place. So a pixel that the model keeps is the picture's own pixel, at any
size, what moves keeps its detail, and what is new is as coarse as the model.
"""

from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from genie_datasets.base.errors import UserError
from genie_robotics.models.inputs import shown
from genie_robotics.models.layers.patches import places
from genie_robotics.models.video_tokenizer import Origin

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

    def show(self, frame: UInt8[Tensor, "B H W 3"], origin: Origin | None) -> UInt8[Tensor, "B H2 W2 3"]:
        """Frames at the displayed size; origin: of these frames, None without a reference."""
        if tuple(frame.shape[1:3]) == self.size:
            return frame
        enlarged = self.enlarge(frame)
        if self.detail is not None and origin is not None:
            # Squared, because a new color that is mixed with a little of the reference would show its outlines.
            kept = self.enlarge(origin.share.unsqueeze(-1)).square()
            enlarged = torch.addcmul(enlarged, kept, self.detail_at(origin.place))
        return enlarged.round_().clamp_(0, 255).to(torch.uint8).contiguous()

    def detail_at(self, place: Int[Tensor, "B H W 2"]) -> Float[Tensor, "B H2 W2 3"]:
        """The detail at the places from which the model's pixels come."""
        assert self.detail is not None
        size = (place.shape[1], place.shape[2])
        moved = place - places(size, place.device)  # in the model's pixels
        moved = functional.interpolate(moved.permute(0, 3, 1, 2).float(), self.size, mode="nearest")
        found = []
        for axis in range(2):
            here = torch.arange(self.size[axis], device=place.device).view((-1, 1) if axis == 0 else (1, -1))
            there = here + moved[:, axis] * (self.size[axis] / size[axis])
            found.append(there.round().long().clamp(0, self.size[axis] - 1))
        batch = torch.arange(len(place), device=place.device).view(-1, 1, 1)
        return self.detail.expand(len(place), -1, -1, -1)[batch, found[0], found[1]]

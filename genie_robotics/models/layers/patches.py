"""Frames to patches and back, and pixels between uint8 and [0, 1]."""

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor


def num_patches(image_size: tuple[int, int], patch: int) -> int:
    """Patches N of a frame of `image_size` (H, W); both must be multiples of `patch`."""
    height, width = image_size
    if height % patch or width % patch:
        raise ValueError(f"image size {height}x{width} is not a multiple of the patch size {patch}")
    return (height // patch) * (width // patch)


def patchify(frames: Float[Tensor, "B T H W C"], patch: int) -> Float[Tensor, "B T N P"]:
    return rearrange(frames, "b t (h p) (w q) c -> b t (h w) (p q c)", p=patch, q=patch)


def unpatchify(
    patches: Float[Tensor, "B T N P"], patch: int, image_size: tuple[int, int]
) -> Float[Tensor, "B T H W C"]:
    return rearrange(patches, "b t (h w) (p q c) -> b t (h p) (w q) c", h=image_size[0] // patch, p=patch, q=patch)


def to_unit(frames: UInt8[Tensor, "*B H W C"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "*B H W C"]:
    return frames.to(dtype) / 255


def to_uint8(frames: Float[Tensor, "*B H W C"]) -> UInt8[Tensor, "*B H W C"]:
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8)

"""Frames to patches and back, and pixels between uint8 and [0, 1]."""

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor


def num_patches(image_size: tuple[int, int], patch_size: int) -> int:
    """Patches N of a frame of `image_size` (H, W), both multiples of `patch_size`; raises ValueError."""
    height, width = image_size
    if height % patch_size or width % patch_size:
        raise ValueError(f"image size must be a multiple of the patch size {patch_size}, got {height}x{width}")
    return (height // patch_size) * (width // patch_size)


def patchify(frames: Float[Tensor, "B T H W C"], patch_size: int) -> Float[Tensor, "B T N P"]:
    return rearrange(frames, "b t (h p) (w q) c -> b t (h w) (p q c)", p=patch_size, q=patch_size)


def unpatchify(
    patches: Float[Tensor, "B T N P"], patch_size: int, image_size: tuple[int, int]
) -> Float[Tensor, "B T H W C"]:
    height = image_size[0] // patch_size
    return rearrange(patches, "b t (h w) (p q c) -> b t (h p) (w q) c", h=height, p=patch_size, q=patch_size)


def to_unit(frames: UInt8[Tensor, "*B H W C"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "*B H W C"]:
    """Pixels 0 .. 255 as numbers 0 .. 1."""
    return frames.to(dtype) / 255


def to_uint8(frames: Float[Tensor, "*B H W C"]) -> UInt8[Tensor, "*B H W C"]:
    return (frames.clamp(0, 1) * 255).round().to(torch.uint8)

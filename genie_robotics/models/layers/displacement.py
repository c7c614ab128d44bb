"""Patches that are copied from elsewhere in a picture: what has moved looks as it did, whatever it is.

As in video codecs a search finds for each patch of a frame from where in the picture it comes (its motion vector). As
in Finn et al. 2016 (https://arxiv.org/abs/1605.07157) the model's own choice is a distribution over shifts, and what it
shows a mixture of patches of the picture.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

REACH = 2  # largest shift in each direction, in half patches
BETTER = 0.5  # squared error of a moved patch, relative to that of the unmoved one, below which it has moved
NEAR = 1e-3  # squared error per pixel and channel that the farthest shift costs: of equal patches the nearest is taken


@dataclass(frozen=True)
class Motion:
    """Motion vectors: the places in a picture from which the patches of frames come."""

    shift: Int[Tensor, "B T N 2"]
    """From each patch to the place from which it has moved, in pixels: rows, columns; 0 if it has not moved."""
    moved: Bool[Tensor, "B T N"]


class Displacement(nn.Module):
    """Chooses for each patch where in the picture it comes from, given features of the patch.

    First among shifts by half a patch, at most REACH in each direction; then among shifts by a pixel in between.
    """

    index: Tensor

    def __init__(self, width: int, patch_size: int, image_size: tuple[int, int]):
        super().__init__()
        self.patch_size = patch_size
        self.step = patch_size // 2 if patch_size % 2 == 0 else patch_size
        self.margin = self.step // 2
        self.side = 2 * REACH + 1
        self.num_choices = self.side**2, (2 * self.margin + 1) ** 2
        """Choices of the coarse and of the fine shift."""
        self.coarse = nn.Linear(width, self.side**2)
        self.fine = nn.Linear(width, 2 * (2 * self.margin + 1))  # rows, columns
        self.grid = tuple(side // patch_size for side in image_size)
        # Windows of the picture lie on a lattice of steps; each patch may come from `side` x `side` of them.
        per_patch, choices = patch_size // self.step, torch.arange(self.side)
        rows, columns = (per_patch * torch.arange(number).unsqueeze(-1) + choices for number in self.grid)
        lattice = [per_patch * (number - 1) + self.side for number in self.grid]
        self.num_windows = lattice[0] * lattice[1]
        index = rows[:, None, :, None] * lattice[1] + columns[None, :, None, :]
        self.register_buffer("index", index.reshape(-1, self.side**2), persistent=False)  # (N, K)

    @property
    def mixing_flops(self) -> int:
        """Operations of one frame beside those of its linear layers."""
        number, size = len(self.index), self.patch_size
        window, shifts = size + 2 * self.margin, 2 * self.margin + 1
        fine = 3 * size * shifts * (window + size)
        return 2 * number * (self.num_windows * 3 * window**2 + fine)

    @property
    def search_flops(self) -> int:
        """Operations of `search` in one frame, in products of matrices."""
        scale = 2 if self.patch_size % 2 == 0 else 1
        side = 2 * (REACH * self.step // scale) + 1
        return 2 * len(self.index) * side**2 * 3 * (self.patch_size // scale) ** 2

    def forward(self, x: Float[Tensor, "B T N D"], picture: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B T H W 3"]:
        """The picture with its patches displaced."""
        window, size, shifts = self.patch_size + 2 * self.margin, self.patch_size, 2 * self.margin + 1
        padded = padded_by(picture, REACH * self.step + self.margin)
        windows = functional.unfold(padded, window, stride=self.step).transpose(1, 2)  # (B, M, C)
        choice = self.coarse(x).float().softmax(-1).to(windows.dtype)
        weights = choice.new_zeros(*choice.shape[:-1], self.num_windows)
        weights = weights.scatter(-1, self.index.expand_as(choice), choice)
        mixed = torch.matmul(weights.flatten(1, 2), windows).unflatten(1, choice.shape[1:3])
        mixed = rearrange(mixed, "b t n (c p q) -> b t n c p q", p=window, q=window)
        rows, columns = self.fine(x).float().unflatten(-1, (2, shifts)).softmax(-1).to(mixed.dtype).unbind(-2)
        mixed = torch.einsum("btncsqp,btns->btncpq", mixed.unfold(-2, size, 1), rows)
        mixed = torch.einsum("btncpsq,btns->btncpq", mixed.unfold(-1, size, 1), columns)
        return rearrange(mixed, "b t (i j) c p q -> b t (i p) (j q) c", i=self.grid[0])

    def shifts(self, x: Float[Tensor, "B T N D"]) -> Int[Tensor, "B T N 2"]:
        """The most likely shift of each patch; see `Motion`."""
        coarse = self.coarse(x).argmax(-1)
        fine = self.fine(x).unflatten(-1, (2, -1)).argmax(-1) - self.margin
        return torch.stack([coarse // self.side, coarse % self.side], -1).sub(REACH).mul(self.step) + fine

    def loss(self, x: Float[Tensor, "B T N D"], motion: Motion) -> Float[Tensor, ""]:
        """Cross-entropy of the choices at patches that have moved, over all patches, in nats."""
        coarse, fine = self.parts(motion.shift)
        shifts = 2 * self.margin + 1
        by_axis = self.fine(x).float().unflatten(-1, (2, shifts)).log_softmax(-1)
        choices = (
            (by_axis[..., 0, :, None] + by_axis[..., 1, None, :]).flatten(-2),
            self.coarse(x).float().log_softmax(-1),
        )
        wrong = -sum(of.gather(-1, k.unsqueeze(-1))[..., 0] for of, k in zip(choices, (fine, coarse), strict=True))
        return (wrong * motion.moved).mean()

    def parts(self, shift: Int[Tensor, "B T N 2"]) -> tuple[Int[Tensor, "B T N"], Int[Tensor, "B T N"]]:
        """Numbers of the coarse and of the fine choice of shifts."""
        coarse = torch.div(shift + self.margin, self.step, rounding_mode="floor").clamp(-REACH, REACH)
        fine = (shift - coarse * self.step + self.margin).clamp(0, 2 * self.margin)
        coarse = coarse + REACH
        return coarse[..., 0] * self.side + coarse[..., 1], fine[..., 0] * (2 * self.margin + 1) + fine[..., 1]

    @torch.no_grad()
    def search(self, frames: Float[Tensor, "B T H W 3"], picture: Float[Tensor, "B H W 3"]) -> Motion:
        """Block matching: first at half the resolution, within reach; then by a pixel around the best."""
        size, scale = self.patch_size, 2 if self.patch_size % 2 == 0 else 1
        frames, picture = (x if x.dtype == torch.float64 else x.float() for x in (frames, picture))
        small, reach = size // scale, REACH * self.step // scale
        low, side = halved(frames, scale), 2 * reach + 1
        # (B, N, side * side, C): the patches that are tried, in place around each patch
        tried = padded_by(halved(picture, scale), reach).unfold(2, small + 2 * reach, small)
        tried = tried.unfold(3, small + 2 * reach, small).unfold(4, small, 1).unfold(5, small, 1)
        tried = rearrange(tried, "b c i j k l p q -> b (i j) (k l) (p q c)")
        patches = rearrange(low, "b t (i p) (j q) c -> b (i j) t (p q c)", p=small, q=small)
        steps = torch.arange(side, device=frames.device) - reach
        distant = (steps[:, None].square() + steps.square()) / (2 * max(1, reach) ** 2)
        cost = tried.square().sum(-1) + NEAR * tried.shape[-1] * distant.flatten()
        best = torch.baddbmm(cost.flatten(0, 1).unsqueeze(1), patches.flatten(0, 1), tried.flatten(0, 1).mT, alpha=-2)
        best = best.argmin(-1).view(*patches.shape[:3]).transpose(1, 2)  # (B, T, N)
        shift = scale * torch.stack([best // side - reach, best % side - reach], -1)
        target = rearrange(frames, "b t (i p) (j q) c -> b t (i j) c p q", p=size, q=size)
        around = self.at(picture, shift, margin=1)
        places = [(i, j) for i in range(3) for j in range(3)]
        squared = [(around[..., i : i + size, j : j + size] - target).square().mean((-3, -2, -1)) for i, j in places]
        errors, near = torch.stack(squared, -1), torch.tensor(places, device=frames.device) - 1
        far = (shift.unsqueeze(-2) + near).square().sum(-1) / (2 * (REACH * self.step) ** 2)
        which = (errors + NEAR * far).argmin(-1)
        error = errors.gather(-1, which.unsqueeze(-1))[..., 0]
        unmoved = (self.at(picture, torch.zeros_like(shift)) - target).square().mean((-3, -2, -1))
        moved = error < BETTER * unmoved
        shift = (shift + near[which]) * moved.unsqueeze(-1)
        return Motion(shift, moved)

    def patches_at(self, picture: Float[Tensor, "B H W 3"], shift: Int[Tensor, "B T N 2"]) -> Float[Tensor, "B T N P"]:
        """The picture's patches at shifts."""
        return rearrange(self.at(picture, shift), "b t n c p q -> b t n (p q c)")

    def at(
        self, picture: Float[Tensor, "B H W 3"], shift: Int[Tensor, "B T N 2"], margin: int = 0
    ) -> Float[Tensor, "B T N 3 w w"]:
        """The picture's patches at shifts, with a margin around each."""
        around, window = REACH * self.step + 1 + margin, self.patch_size + 2 * margin
        windows = padded_by(picture, around).unfold(2, window, 1).unfold(3, window, 1)  # (B, 3, rows, columns, w, w)
        rows = torch.arange(self.grid[0], device=shift.device).repeat_interleave(self.grid[1]) * self.patch_size
        columns = torch.arange(self.grid[1], device=shift.device).repeat(self.grid[0]) * self.patch_size
        batch = torch.arange(len(shift), device=shift.device).view(-1, 1, 1)
        offset = around - margin
        found = windows.permute(0, 2, 3, 1, 4, 5)
        return found[batch, rows + shift[..., 0] + offset, columns + shift[..., 1] + offset]


def padded_by(picture: Float[Tensor, "B H W 3"], number: int) -> Float[Tensor, "B 3 h w"]:
    """With the pixels of its edges repeated."""
    return functional.pad(picture.permute(0, 3, 1, 2), (number,) * 4, mode="replicate")


def halved(frames: Float[Tensor, "*B H W 3"], scale: int) -> Float[Tensor, "*B h w 3"]:
    """Frames at 1 / scale of the resolution."""
    return rearrange(frames, "... (h p) (w q) c -> ... h w p q c", p=scale, q=scale).mean((-3, -2))

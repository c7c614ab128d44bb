"""Patches that are copied from elsewhere in a picture: what has moved looks as it did, whatever it is.

As in Finn et al. 2016 (https://arxiv.org/abs/1605.07157) a motion is a distribution over shifts: each patch is a mixture
of patches of the picture, so gradients also reach far shifts.
"""

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

REACH = 7  # steps of half a patch, in each direction


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
        self.coarse = nn.Linear(width, self.side**2)
        self.fine = nn.Linear(width, 2 * (2 * self.margin + 1))  # rows, columns
        self.grid = tuple(side // patch_size for side in image_size)
        # Windows of the picture lie on a lattice of steps; each patch may come from `side` x `side` of them.
        per_patch, choices = patch_size // self.step, torch.arange(self.side)
        rows, columns = (per_patch * torch.arange(number).unsqueeze(-1) + choices for number in self.grid)
        height, width = (per_patch * (number - 1) + self.side for number in self.grid)
        self.num_windows = height * width
        index = rows[:, None, :, None] * width + columns[None, :, None, :]
        self.register_buffer("index", index.reshape(-1, self.side**2), persistent=False)  # (N, K)

    @property
    def mixing_flops(self) -> int:
        """Operations of one frame beside those of its linear layers."""
        number, size = len(self.index), self.patch_size
        window, shifts = size + 2 * self.margin, 2 * self.margin + 1
        fine = 3 * size * shifts * (window + size)
        return 2 * number * (self.num_windows * 3 * window**2 + fine)

    def windows(self, picture: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B M C"]:
        """All patches of the picture, with a margin around each, beyond the edge too."""
        around, window = REACH * self.step + self.margin, self.patch_size + 2 * self.margin
        padded = functional.pad(picture.permute(0, 3, 1, 2), (around,) * 4, mode="replicate")
        return functional.unfold(padded, window, stride=self.step).transpose(1, 2)

    def shifts(self, x: Float[Tensor, "B T N D"]) -> Int[Tensor, "B T N 2"]:
        """The most likely shift of each patch: rows and columns from the patch to where it comes from, in pixels."""
        coarse = self.coarse(x).argmax(-1)
        fine = self.fine(x).unflatten(-1, (2, -1)).argmax(-1) - self.margin
        return torch.stack([coarse // self.side, coarse % self.side], -1).sub(REACH).mul(self.step) + fine

    def forward(self, x: Float[Tensor, "B T N D"], picture: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B T H W 3"]:
        windows = self.windows(picture)
        choice = self.coarse(x).float().softmax(-1).to(windows.dtype)
        weights = choice.new_zeros(*choice.shape[:-1], windows.shape[1])
        weights = weights.scatter(-1, self.index.expand_as(choice), choice)
        mixed = torch.matmul(weights.flatten(1, 2), windows).unflatten(1, choice.shape[1:3])
        window, size, shifts = self.patch_size + 2 * self.margin, self.patch_size, 2 * self.margin + 1
        mixed = rearrange(mixed, "b t n (c p q) -> b t n c p q", p=window, q=window)
        rows, columns = self.fine(x).float().unflatten(-1, (2, shifts)).softmax(-1).to(mixed.dtype).unbind(-2)
        mixed = torch.einsum("btncsqp,btns->btncpq", mixed.unfold(-2, size, 1), rows)
        mixed = torch.einsum("btncpsq,btns->btncpq", mixed.unfold(-1, size, 1), columns)
        return rearrange(mixed, "b t (i j) c p q -> b t (i p) (j q) c", i=self.grid[0])

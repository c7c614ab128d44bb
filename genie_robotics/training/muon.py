"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): momentum, orthogonalized by Newton-Schulz.

torch.optim.Muon always iterates in bfloat16, one matrix at a time. On a CPU that does not compute bfloat16 natively,
that took 1.25 to 1.55 s of each `nano` step instead of 0.07 s (docs/performance.md). Here the caller names the type,
and matrices of one shape are iterated together. State and result are otherwise those of torch.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn, optim

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
EPSILON = 1e-7


class Muon(optim.Optimizer):
    """Muon with Nesterov momentum on matrices, as torch.optim.Muon.

    Args:
        dtype: type of the Newton-Schulz iteration.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        dtype: torch.dtype = torch.float32,
        momentum: float = 0.95,
    ):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates all matrices that have a gradient, unless `found_inf` is set, as torch's fused optimizers do."""
        skips = None if self.found_inf is None else self.found_inf > 0
        for group in self.param_groups:
            updates: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                gradient, average = matrix.grad, state["momentum_buffer"]
                if skips is not None:  # then both the momentum and the weights stay
                    gradient = torch.where(skips, average, gradient)
                average.lerp_(gradient, 1 - group["momentum"])
                updates[tuple(matrix.shape)].append((matrix, gradient.lerp(average, group["momentum"])))
            for (rows, columns), pairs in updates.items():
                directions = orthogonalized(torch.stack([update for _, update in pairs]).to(self.dtype))
                rate = group["lr"] * math.sqrt(max(1, rows / columns))
                directions = directions if skips is None else torch.where(skips, 0, directions)
                decay = 1 - group["lr"] * group["weight_decay"]
                for (matrix, _), direction in zip(pairs, directions, strict=True):
                    matrix.mul_(decay if skips is None else torch.where(skips, 1, decay)).sub_(direction, alpha=rate)


def orthogonalized(matrices: Float[Tensor, "n R C"]) -> Float[Tensor, "n R C"]:
    """About U V^T of each matrix U S V^T: a quintic iteration that moves the singular values to 0.7 .. 1.2."""
    if matrices.shape[-2] > matrices.shape[-1]:
        return orthogonalized(matrices.mT).mT
    a, b, c = COEFFICIENTS
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp_min(EPSILON)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x

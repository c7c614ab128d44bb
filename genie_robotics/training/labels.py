"""Few labels in the loss: a linear head reads true actions from the latent, beside what a stage learns anyway.

As in LAOM (arXiv 2502.00379): every step has a small batch of labelled transitions next to its clips. The head reads
the latent before quantisation, normalised as the codebook sees it, so the latents differ where the actions do before
k-means puts the codes, and go on to. The head is of the training alone: it is in the checkpoints, not in the model's
file.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from genie_datasets.clips.labeled_windows import LabelledBatch, LabelledWindows
from genie_robotics.models.latent_action import LatentActionModel
from genie_robotics.models.quantizers.codebook import exactly
from genie_robotics.models.video_tokenizer import Logs
from genie_robotics.training.config import LabelConfig

SHARE = 0.7
"""Of the variance of latents, what a perfectly read action takes."""


class ActionHead(nn.Module):
    """Latents to actions, in units of the labels' own spread: mean 0 and variance 1 of every number that varies.

    Each number is read along a direction of fixed length. A free linear layer may read an action from a direction in
    which latents hardly differ, and k-means does not follow it there: on a toy of two motions, one a tenth as visible,
    latents told both (R2 1.00), .78 and .22 of their variance went to them, and four codes told the faint one in 77 %;
    with fixed lengths .47 and .53, and 100 %. What cannot be read takes no variance.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int, actions: Float[Tensor, "M A"]):
        super().__init__()
        width = actions.shape[1]
        start = torch.empty(width, latent_dim)
        nn.init.orthogonal_(start, generator=torch.Generator().manual_seed(0))  # the training's stream stays untouched
        self.directions, self.bias = nn.Parameter(start), nn.Parameter(torch.zeros(width))
        spread = actions.double().std(0, correction=0)
        varies = spread > 1e-6 * actions.double().abs().amax(0)
        self.register_buffer("mean", actions.double().mean(0).float())
        self.register_buffer("scale", torch.where(varies, 1 / spread.clamp_min(1e-30), 0.0).float())

    def forward(self, latents: Float[Tensor, "B L"], actions: Float[Tensor, "B A"]) -> Float[Tensor, ""]:
        """Squared error over the labels' variance: 1 knows nothing but the mean, 0 everything."""
        with exactly(latents):
            target = (actions - self.mean) * self.scale
            varies = self.scale > 0
            # Normalised latents have a variance of L in all: each of A actions takes SHARE * L / A of it, at most.
            length = (varies.sum().clamp_min(1) / (SHARE * latents.shape[-1])).sqrt()
            read = F.linear(latents.float(), length * F.normalize(self.directions, dim=-1), self.bias)
            error = (read - target).square() * varies
            return error.mean(0).sum() / varies.sum().clamp_min(1)


class WithLabels(nn.Module):
    """A stage that trains the latent action model, and the head beside it.

    `loss` in the logs stays the stage's own, to compare with runs without labels; `label_error` is the head's.
    """

    def __init__(self, stage: nn.Module, model: LatentActionModel, head: ActionHead, weight: float):
        super().__init__()
        self.stage, self.head, self.weight = stage, head, weight
        self.model = (model,)  # in a tuple: it is registered in `stage` already

    def forward(self, frames: UInt8[Tensor, "B T H W 3"], labelled: LabelledBatch) -> tuple[Float[Tensor, ""], Logs]:
        loss, logs = self.stage(frames)
        book = self.model[0].codebook
        rests = book.config.hold and book.started  # the encoder has learnt, and its codes stand still
        with torch.set_grad_enabled(torch.is_grad_enabled() and not rests):
            latents = self.model[0].embed(labelled.frames)  # (B, n-1, L); entry t is the step from frame t to t+1
        rows = torch.arange(len(latents), device=latents.device)
        error = self.head(latents[rows, labelled.position], labelled.action)
        return loss + self.weight * error, {"loss": loss.detach()} | logs | {"label_error": error.detach()}


class LabelTeacher:
    """What a trainer needs of the labels in one stage: batches, the module around the stage, a state to resume from."""

    def __init__(self, windows: LabelledWindows, digest: str, config: LabelConfig, model: LatentActionModel):
        self.windows, self.digest, self.config, self.model = windows, digest, config, model
        actions = torch.from_numpy(windows.action)
        self.head = ActionHead(model.config.codebook.latent_dim, actions).to(model.encoder_in.weight.device)

    def beside(self, stage: nn.Module) -> WithLabels:
        return WithLabels(stage, self.model, self.head, self.config.weight)

    def batch(self, step: int, rank: int, world_size: int) -> LabelledBatch:
        batch = self.windows.batch(step, self.config.batch_size // world_size, rank, world_size)
        return batch.to(self.head.mean.device)

    def state_dict(self) -> dict[str, Any]:
        return {"digest": self.digest, "head": self.head.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.head.load_state_dict(state["head"])

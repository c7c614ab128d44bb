"""Supervision by a few labels: a linear head predicts true actions from the latents, in addition to a stage's loss.

As in LAOM (arXiv 2502.00379), every step has a small batch of labeled transitions besides its clips. The head reads the
latent before quantization, normalized as the quantizer sees it, so that latents differ where actions differ before
k-means places the codes, and afterwards. Checkpoints hold the head; the trained model does not.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from genie_datasets.clips.labeled_windows import LabeledBatch, LabeledWindows
from genie_robotics.models.latent_action import LatentActionModel
from genie_robotics.models.losses import Logs
from genie_robotics.models.quantizers.base import full_precision
from genie_robotics.training.config import LabelConfig

ACTION_VARIANCE = 0.7
"""Fraction of the latents' variance that a perfectly read action takes."""


class ActionHead(nn.Module):
    """Predicts actions from latents; every number that varies in the labels is scaled to mean 0 and variance 1.

    Each number is read along a direction of fixed length. A free linear layer may read an action along a direction in
    which latents hardly differ, and k-means does not follow it there. Example: on toy video of two motions, one a tenth
    as visible as the other, a free layer read both (R2 1.00), which took 0.78 and 0.22 of the variance, and four codes
    identified the faint motion in 77 % of the steps. With fixed lengths the motions took 0.47 and 0.53, and the codes
    identified it in 100 %. A number that cannot be read takes no variance.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int, actions: Float[Tensor, "M A"]):
        """actions: all labels of the training, whose mean and variance are used."""
        super().__init__()
        num = actions.shape[1]
        start = torch.empty(num, latent_dim)
        nn.init.orthogonal_(start, generator=torch.Generator().manual_seed(0))  # leaves torch's own generator unchanged
        self.directions, self.bias = nn.Parameter(start), nn.Parameter(torch.zeros(num))
        spread = actions.double().std(0, correction=0)
        varies = spread > 1e-6 * actions.double().abs().amax(0)
        self.register_buffer("mean", actions.double().mean(0).float())
        self.register_buffer("scale", torch.where(varies, 1 / spread.clamp_min(1e-30), 0.0).float())

    def forward(self, latents: Float[Tensor, "B L"], actions: Float[Tensor, "B A"]) -> Float[Tensor, ""]:
        """Squared error over the variance of the labels: 0 is perfect, 1 is predicting their mean."""
        with full_precision(latents):
            target = (actions - self.mean) * self.scale
            varies = self.scale > 0
            # Normalized latents have a total variance of L: each of A actions takes ACTION_VARIANCE * L / A at most.
            length = (varies.sum().clamp_min(1) / (ACTION_VARIANCE * latents.shape[-1])).sqrt()
            predicted = F.linear(latents.float(), length * F.normalize(self.directions, dim=-1), self.bias)
            error = (predicted - target).square() * varies
            return error.mean(0).sum() / varies.sum().clamp_min(1)


class SupervisedStage(nn.Module):
    """A stage that trains the latent action model, with the loss of the head added.

    In the logs `loss` is the stage's own, comparable with runs without labels; `label_error` is the head's.
    """

    def __init__(self, stage: nn.Module, model: LatentActionModel, head: ActionHead, weight: float):
        super().__init__()
        self.stage, self.head, self.weight = stage, head, weight
        self.model = (model,)  # in a tuple, because it is a submodule of `stage` already

    def forward(self, frames: UInt8[Tensor, "B T H W 3"], labeled: LabeledBatch) -> tuple[Float[Tensor, ""], Logs]:
        loss, logs = self.stage(frames)
        frozen = self.model[0].quantizer.frozen  # then the encoder no longer learns
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            latents = self.model[0].embed(labeled.frames)  # (B, n-1, L); entry t is the step from frame t to t+1
        rows = torch.arange(len(latents), device=latents.device)
        error = self.head(latents[rows, labeled.position], labeled.action)
        return loss + self.weight * error, {"loss": loss.detach()} | logs | {"label_error": error.detach()}


class LabelSupervision:
    """Labels and head of one stage.

    Args:
        windows: the labeled transitions.
        digest: of the labels; a resumed stage must have the same.
        model: the latent action model that the stage trains.
    """

    def __init__(self, windows: LabeledWindows, digest: str, config: LabelConfig, model: LatentActionModel):
        self.windows, self.digest, self.config, self.model = windows, digest, config, model
        actions = torch.from_numpy(windows.action)
        self.head = ActionHead(model.config.quantizer.latent_dim, actions).to(model.encoder_in.weight.device)

    def wrap(self, stage: nn.Module) -> SupervisedStage:
        return SupervisedStage(stage, self.model, self.head, self.config.weight)

    def batch(self, step: int, rank: int, world_size: int) -> LabeledBatch:
        """The labeled transitions of this rank at a training step."""
        batch = self.windows.batch(step, self.config.batch_size // world_size, rank, world_size)
        return batch.to(self.head.mean.device)

    def state_dict(self) -> dict[str, Any]:
        return {"digest": self.digest, "head": self.head.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads the head; the trainer has compared the digest."""
        self.head.load_state_dict(state["head"])

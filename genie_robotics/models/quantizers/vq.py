"""Vector quantization by moving averages (van den Oord et al. 2017, appendix A.1), as in Genie section 2.1.

The codebook starts from k-means of recent latents instead of random vectors, and codes that are rarely used are moved
onto latents of the batch for as long as training lasts.
"""

import warnings

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genie_robotics.models.distributed import (
    gather_rows,
    num_processes,
    rank,
    rows_of_all,
    same_random_draws,
    updates_state,
)
from genie_robotics.models.quantizers.base import HostCopy, Quantized, Quantizer, full_precision
from genie_robotics.models.quantizers.config import QuantizerConfig
from genie_robotics.models.quantizers.whitening import Whitening

CHUNK = 2**20  # products of latents and codes that are held at once
EPSILON = 1e-5  # of the smoothed counts
ON_A_CODE = 0.01  # distance to a code, relative to the spread of the latents, up to which a latent is that code


class VectorQuantizer(Quantizer):
    """The nearest of K vectors.

    The first training steps pass latents through and remember recent ones; then k-means starts the codebook. From there
    the codes follow the latents by moving averages, or stay (`vq.freeze_after_init`). Several processes keep one
    codebook: averages are over all their batches.

    Buffers: `codebook` (K, L), `ema_count` (K,), `ema_sum` (K, L), in the space in which distances are measured.
    """

    codebook: Tensor
    ema_count: Tensor
    ema_sum: Tensor
    has_started: Tensor
    num_updates: Tensor
    recent: Tensor

    def __init__(self, config: QuantizerConfig):
        super().__init__(config)
        size = (config.num_codes, config.latent_dim)
        self.register_buffer("has_started", torch.tensor(False))
        self.register_buffer("ema_count", torch.ones(size[0]))
        self.register_buffer("ema_sum", torch.zeros(size))
        self.register_buffer("codebook", torch.zeros(size))
        self.whitening = Whitening(config.latent_dim, config.vq.whiten) if config.vq.whiten else None
        # State of training, kept in checkpoints and not in the model's file.
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long), persistent=False)
        self.register_buffer("recent", torch.zeros(0, config.latent_dim), persistent=False)

        self._host_started, self._host_updates = HostCopy(), HostCopy()

    @property
    def started(self) -> bool:
        return bool(self._host_started.of(self.has_started))

    @property
    def frozen(self) -> bool:
        return self.config.vq.freeze_after_init and self.started

    def quantize(self, latents: Float[Tensor, "M L"], num_clips: int) -> Quantized:
        c = self.config.vq
        no_loss = latents.new_zeros(())
        if self.training and not self.started:
            self._remember(latents.detach(), num_clips)
        if not self.started:
            return Quantized(latents, None, no_loss)
        codes = self.nearest_code(latents.detach())
        vectors = F.embedding(codes, self.vectors).to(latents.dtype)
        if not self.training or c.freeze_after_init:
            return Quantized(vectors, codes, no_loss)
        if updates_state():
            self._host_updates.add_one(self.num_updates)
            self.update(self.whiten(latents.detach()), codes, num_clips)
        loss = c.commitment * F.mse_loss(latents, vectors)
        return Quantized(latents + (vectors - latents).detach(), codes, loss)

    def _remember(self, latents: Float[Tensor, "M L"], num_clips: int) -> None:
        """Keeps latents for the k-means start, and starts when it is time."""
        c = self.config.vq
        batch = gather_rows(latents, num_clips)  # of all processes, so that each remembers the same
        self.recent = torch.cat([self.recent, batch])[-c.num_remembered :]
        if updates_state():
            self._host_updates.add_one(self.num_updates)
            if (
                self._host_updates.of(self.num_updates) > c.quantize_after_steps
                or self.progress >= c.quantize_after_fraction
            ):
                self.start(self.recent, len(batch))
                self.recent = self.recent[:0]

    @torch.no_grad()
    def update(self, latents: Float[Tensor, "M L"], codes: Int[Tensor, "M"], num_clips: int = 1) -> None:
        """Adds a batch of (whitened) latents to the averages, and moves rarely used codes onto some of them."""
        c, num_codes = self.config.vq, self.num_codes
        latents = latents.to(self.codebook.dtype)
        count = latents.new_zeros(num_codes, 1).index_add_(0, codes, latents.new_ones(len(latents), 1))
        total = torch.zeros_like(self.codebook).index_add_(0, codes, latents)
        if num_processes() > 1:
            both = torch.cat([count, total], dim=1)
            dist.all_reduce(both)
            count, total = both[:, :1], both[:, 1:]
        self.ema_count.lerp_(count[:, 0], 1 - c.decay)
        self.ema_sum.lerp_(total, 1 - c.decay)
        number = self.ema_count.sum(-1, keepdim=True)
        smoothed = (self.ema_count + EPSILON) / (number + num_codes * EPSILON) * number
        self.codebook.copy_(self.ema_sum / smoothed.unsqueeze(-1))
        fair_count = len(latents) * num_processes() / num_codes
        dead = self.ema_count < c.dead_code_threshold * fair_count  # equal in all processes
        with same_random_draws(latents.device):
            self._replace(dead, latents, num_clips, fair_count)

    def _replace(self, dead: Bool[Tensor, "K"], latents: Float[Tensor, "M L"], num_clips: int, count: float) -> None:
        """Moves the codes `dead` onto latents drawn at random, as many as there are latents that lie on no code.

        Without a branch on `dead`, which a GPU would have to tell: latents are drawn for all codes at every step.
        """
        order = torch.randperm(len(latents) * num_processes(), device=latents.device)
        drawn = rows_of_all(latents, order[: self.num_codes], num_clips)
        # Many latents may be equal, as those of patches that do not change: one code is enough for them.
        spread = (drawn - drawn.mean(0)).square().sum(-1).mean().sqrt()
        equal = torch.cdist(drawn, torch.cat([self.codebook, drawn])) <= ON_A_CODE * spread
        free = ~equal.tril(self.num_codes - 1).any(-1)  # neither a code nor a latent drawn before is equal
        drawn = drawn[(~free).to(torch.uint8).argsort(stable=True)]
        # The i-th dead code gets the i-th latent. Codes beyond wait for a later step, so that no two are equal.
        place = dead.cumsum(0) - 1
        moved = (dead & (place < free.sum())).unsqueeze(-1)
        target = drawn[place.clamp(0, len(drawn) - 1)]
        self.codebook.copy_(torch.where(moved, target, self.codebook))
        self.ema_count.copy_(torch.where(moved[:, 0], count, self.ema_count))
        self.ema_sum.copy_(torch.where(moved, target * count, self.ema_sum))

    @torch.no_grad()
    def start(self, latents: Float[Tensor, "M L"], batch_size: int) -> None:
        """Puts the codes at the k-means centers of `latents`, the same in every process.

        batch_size: latents of a training step, over all processes.
        """
        with same_random_draws(latents.device):  # from the step's seed, so that a resumed run starts the same codebook
            seed = int(torch.randint(2**31, ()))
        if rank() == 0:
            if self.whitening is not None:
                self.whitening.fit(latents)
            latents = self.whiten(latents)
            centers, share = k_means(latents.float().cpu().numpy(), self.num_codes, seed)
            self.codebook.copy_(torch.from_numpy(centers))
            self.ema_count.copy_(torch.from_numpy(share) * batch_size)
        if num_processes() > 1:
            if self.whitening is not None:
                self.whitening.broadcast()
            dist.broadcast(self.codebook, src=0)
            dist.broadcast(self.ema_count, src=0)
        self.ema_sum.copy_(self.codebook * self.ema_count.unsqueeze(-1))
        self.has_started.fill_(True)

    def reset(self) -> None:
        super().reset()
        self.has_started.fill_(False)
        self.num_updates.zero_()
        self.recent = self.recent[:0]

    def nearest_code(self, latents: Float[Tensor, "M L"]) -> Int[Tensor, "M"]:
        # The largest x.e - |e|^2/2, in chunks that stay in a processor's cache.
        latents, codebook = self.whiten(latents), self.codebook.to(latents.dtype)
        half = codebook.square().sum(-1) / 2
        chunks = latents.split(max(1, CHUNK // len(codebook)))
        return torch.cat([torch.addmm(half, chunk, codebook.T, beta=-1).argmax(-1) for chunk in chunks])

    @torch.no_grad()
    def margin(self, latents: Float[Tensor, "*S L"]) -> Float[Tensor, "*S"]:
        """1 - d1 / d2, from the distances to the nearest two codes."""
        with full_precision(latents):
            flat = self.whiten(self.normalize(latents).flatten(0, -2))
            nearest = torch.cdist(flat, self.codebook.to(flat.dtype)).topk(2, largest=False).values
            return (1 - nearest[:, 0] / nearest[:, 1].clamp_min(1e-12)).reshape(latents.shape[:-1])

    @property
    def vectors(self) -> Float[Tensor, "K L"]:
        return self.codebook if self.whitening is None else self.whitening.inverse(self.codebook)

    def whiten(self, latents: Float[Tensor, "M L"]) -> Float[Tensor, "M L"]:
        return latents if self.whitening is None else self.whitening(latents)


def k_means(points: np.ndarray, num_codes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centers (K, L) of points (M, L), and the share (K,) of the points that belong to each.

    Small codebooks use k-means++ with restarts, because random starts merge clusters that lie far apart. On one thread:
    with more, the order of sums varies and a resumed run would differ in the last bits.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    points = points[np.isfinite(points).all(-1)]  # the trainer stops at a loss that is not finite, and says so
    if len(points) < num_codes:  # a very small run: training replaces the other codes later
        points = np.concatenate([points, np.random.default_rng(seed).normal(size=(num_codes, points.shape[1]))])
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than codes, as in still video
        means = KMeans(num_codes, n_init=10 if num_codes <= 64 else 1, max_iter=50, random_state=seed).fit(points)
    return means.cluster_centers_, np.bincount(means.labels_, minlength=num_codes) / len(points)

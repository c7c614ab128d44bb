"""Vector quantisation by moving averages, with a data-driven start and revival that never stops.

vector-quantize-pytorch holds the codebook, smooths its averages and revives its codes. The start is ours, and so is the
quantisation itself: the library makes a one-hot matrix (latents, codes), of int64 and again of float32, which for the
tokenizer's 16384 latents and 1024 codes takes 8 times as long as what is below and 340 MB (docs/LOG.md). The tests hold
the two against each other.

All that changes from step to step is in buffers: of the library's, `initted`, `cluster_size`, `embed_avg` and `embed`;
the attributes set on it below are set anew at every step.
"""

import warnings

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize
from vector_quantize_pytorch.vector_quantize_pytorch import batched_sample_vectors

from genie_robotics.models.distributed import drawn_alike, gather_rows, num_processes
from genie_robotics.models.quantizers.config import CodebookConfig
from genie_robotics.models.quantizers.whitening import Whitening

PIECE = 2**20  # products of latents and codes held at once


class VectorCodes(VectorQuantize):
    """(M, latent_dim) latents to the nearest of `num_codes` vectors.

    The first `start_after` training steps pass latents through unquantised and remember the recent ones; k-means on
    those starts the codebook. From then on it follows the latents by moving averages, and a code used less than
    `revive_below` of its fair share is moved onto a latent of the current batch, for as long as training lasts. With
    `hold` it stays at the k-means centres instead.

    Several processes (there must be a process group before this is constructed) keep one codebook: averages are over
    the batches of all, rank 0 starts it.
    """

    num_updates: Tensor
    recent: Tensor

    def __init__(self, config: CodebookConfig):
        super().__init__(
            dim=config.latent_dim,
            codebook_size=config.num_codes,
            decay=config.decay,
            commitment_weight=config.commitment,
            kmeans_init=True,
            threshold_ema_dead_code=1 if config.revive_below else 0,  # its true value depends on the batch: quantise
            rotation_trick=False,
            sync_codebook=num_processes() > 1,  # the library's own answer is remembered from the first codebook made
        )
        self._codebook.replace_sample_fn = batched_sample_vectors  # of the rows of all processes, gathered: follow
        self.config = config
        self.whitening = Whitening(config.latent_dim, config.whiten) if config.whiten else None
        self.parts: list[tuple[Tensor, int]] = []  # latents and clips of a step whose batch is taken in several
        # State of training only: kept in the run's state/, not in the model's file.
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long), persistent=False)
        self.register_buffer("recent", torch.zeros(0, config.latent_dim), persistent=False)

    @property
    def started(self) -> bool:
        return bool(self._codebook.initted)

    def quantise(
        self, latents: Float[Tensor, "M L"], progress: float, num_clips: int = 1, more: bool = False
    ) -> tuple[Float[Tensor, "M L"], Int[Tensor, "M"] | None, Float[Tensor, ""]]:
        """Quantised latents (straight-through), codes (None before the start) and the commitment loss.

        `progress` of the training, 0 .. 1. `num_clips`: the latents are of so many clips, one after the other. `more`
        of the step's batch is to come: the codebook starts and moves with the last part, when it has seen all.
        """
        c = self.config
        if self.training and not (self.started and c.hold):
            self.parts.append((latents.detach(), num_clips))
        if not self.started and self.training:
            batch = gather_rows(latents.detach(), num_clips)  # of all processes, so that each remembers the same
            self.recent = torch.cat([self.recent, batch])[-c.num_remembered :]
            if not more:
                self.num_updates += 1
                if int(self.num_updates) > c.start_after or progress >= c.start_share:
                    self.start(self.recent, len(batch) * len(self.parts))
                    self.recent = self.recent[:0]
                else:
                    self.parts.clear()
        if not self.started:
            return latents, None, latents.new_zeros(())
        codes = self.nearest(latents.detach())
        vectors = self.lookup(codes).to(latents.dtype)
        if not self.training or c.hold:
            self.parts.clear()
            return vectors, codes, latents.new_zeros(())
        if not more:
            self.num_updates += 1
            step = torch.cat([rows for rows, _ in self.parts])
            of_step = codes if len(self.parts) == 1 else self.nearest(step)
            self.follow(self.white(step), of_step, sum(num for _, num in self.parts))
            self.parts.clear()
        loss = c.commitment * F.mse_loss(latents, vectors)
        return latents + (vectors - latents).detach(), codes, loss

    @torch.no_grad()
    def follow(self, latents: Float[Tensor, "M L"], codes: Int[Tensor, "M"], num_clips: int = 1) -> None:
        """Takes a batch of (whitened) latents into the averages, and moves codes hardly used onto latents of it."""
        book, c = self._codebook, self.config
        latents = latents.to(book.embed.dtype)
        used = latents.new_zeros(c.num_codes, 1).index_add_(0, codes, latents.new_ones(len(latents), 1))
        total = torch.zeros_like(book.embed[0]).index_add_(0, codes, latents)
        if num_processes() > 1:
            both = torch.cat([used, total], dim=1)
            dist.all_reduce(both)
            used, total = both[:, :1], both[:, 1:]
        book.cluster_size.lerp_(used.T, 1 - c.decay)
        book.embed_avg.lerp_(total.unsqueeze(0), 1 - c.decay)
        book.update_ema()
        fair = len(latents) * num_processes() / c.num_codes
        book.threshold_ema_dead_code = c.revive_below * fair
        book.reset_cluster_size = fair
        if (book.cluster_size < book.threshold_ema_dead_code).any():  # the same in all processes
            latents = gather_rows(latents, num_clips)
            with drawn_alike(latents.device):
                book.expire_codes_(latents.unsqueeze(0))

    @torch.no_grad()
    def start(self, latents: Float[Tensor, "M L"], batch: int) -> None:
        """Puts the codes at the k-means centres of `latents`, the same on every rank.

        Args:
            batch: latents of a step, over all ranks.
        """
        with drawn_alike(latents.device):  # from the step's seed, so that a resumed run starts the same codebook
            seed = int(torch.randint(2**31, ()))
        book = self._codebook
        if num_processes() == 1 or dist.get_rank() == 0:
            if self.whitening is not None:
                self.whitening.fit(latents)
            latents = self.white(latents)
            centres, share = k_means(latents.float().cpu().numpy(), self.config.num_codes, seed)
            book.embed.copy_(torch.from_numpy(centres))
            book.cluster_size.copy_(torch.from_numpy(share) * batch)
        if num_processes() > 1:
            if self.whitening is not None:
                self.whitening.share()
            dist.broadcast(book.embed, src=0)
            dist.broadcast(book.cluster_size, src=0)
        book.embed_avg.copy_(book.embed * book.cluster_size.unsqueeze(-1))
        book.initted.fill_(True)

    def forget(self) -> None:
        """Back to before the start."""
        self._codebook.initted.fill_(False)
        self.num_updates.zero_()
        self.recent = self.recent[:0]
        self.parts.clear()

    def nearest(self, latents: Float[Tensor, "M L"]) -> Int[Tensor, "M"]:
        """The largest x.e - |e|^2/2, in pieces that stay in a processor's cache."""
        latents, vectors = self.white(latents), self.codebook.to(latents.dtype)
        half = vectors.square().sum(-1) / 2
        pieces = latents.split(max(1, PIECE // len(vectors)))
        return torch.cat([torch.addmm(half, piece, vectors.T, beta=-1).argmax(-1) for piece in pieces])

    def lookup(self, codes: Int[Tensor, "*S"]) -> Float[Tensor, "*S L"]:
        return F.embedding(codes, self.vectors)

    @property
    def vectors(self) -> Float[Tensor, "K L"]:
        return self.codebook if self.whitening is None else self.whitening.undo(self.codebook)

    def white(self, latents: Float[Tensor, "M L"]) -> Float[Tensor, "M L"]:
        """Latents in the space in which distances are measured and the codes are kept."""
        return latents if self.whitening is None else self.whitening(latents)


def k_means(points: np.ndarray, num_codes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres (K, L) of points (M, L), and the share (K,) of the points that each has.

    k-means++ with restarts for small codebooks: from random starts k-means merges clusters that lie far apart, and
    nothing parts them afterwards. On one thread: with more, sums depend on which finishes first, and a resumed run
    would differ in the last bits.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    points = points[np.isfinite(points).all(-1)]  # the trainer stops at a loss that is not finite, and says so
    if len(points) < num_codes:  # a very small run: the rest of the codes are revived as training goes on
        points = np.concatenate([points, np.random.default_rng(seed).normal(size=(num_codes, points.shape[1]))])
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than codes: still video
        means = KMeans(num_codes, n_init=10 if num_codes <= 64 else 1, max_iter=50, random_state=seed).fit(points)
    return means.cluster_centers_, np.bincount(means.labels_, minlength=num_codes) / len(points)

"""Tokens and latent action codes of clips, kept on disk: from the second epoch on, the dynamics need not ask for them.

A row a clip, in a file that is as long as all clips need and takes what has been written. Rows are filled as training
meets them. The key is the video, how it is cut into clips, and the weights that made the codes.
"""

import errno
import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from genie_datasets.base.cache_dir import cache_dir
from genie_datasets.base.errors import UserError


class TokenCache:
    """Args:
        key: what the codes depend on.
        num_clips, clip_length, num_patches: C, T, N.
        num_tokens, num_actions: sizes of the codebooks.

    Raises:
        UserError: the disk has not got the room.
    """

    def __init__(self, key: str, num_clips: int, clip_length: int, num_patches: int, num_tokens: int, num_actions: int):
        self.row = np.dtype(
            [
                ("actions", np.min_scalar_type(num_actions - 1), (clip_length - 1,)),
                ("tokens", np.min_scalar_type(num_tokens - 1), (clip_length, num_patches)),
                ("whole", np.uint8),  # last, so that it is written after what it vouches for
            ]
        )
        self.num_bytes = num_clips * self.row.itemsize
        self.path = cache_dir() / "tokens" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.bin"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            held = self.path.stat().st_blocks * 512 if self.path.exists() else 0
            free = shutil.disk_usage(self.path.parent).free
            if self.num_bytes - held > free:
                raise UserError(
                    f"--token-cache needs {self.num_bytes - held} bytes ({self.num_bytes / 1e9:.1f} GB), "
                    f"{self.path.parent} has {free} free: train without it, or set GENIE_ROBOTICS_CACHE to a folder on "
                    "a larger disk"
                )
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            os.ftruncate(self.file, self.num_bytes)
        except OSError as error:
            raise self._unwritable(error) from None
        self.rows = np.memmap(self.path, self.row, "r", shape=(num_clips,))

    def close(self) -> None:
        os.close(self.file)

    def get(self, clips: np.ndarray) -> tuple[Int[Tensor, "B T N"], Int[Tensor, "B T-1"]] | None:
        """Tokens and codes of these clips, where all of them are there."""
        rows = self.rows[clips]
        if not rows["whole"].all():
            return None
        return torch.from_numpy(rows["tokens"].astype(np.int64)), torch.from_numpy(rows["actions"].astype(np.int64))

    def put(self, clips: np.ndarray, tokens: Int[Tensor, "B T N"], actions: Int[Tensor, "B T-1"]) -> None:
        """Raises UserError where the disk is full."""
        rows = np.zeros(len(clips), self.row)
        rows["tokens"], rows["actions"], rows["whole"] = tokens.cpu().numpy(), actions.cpu().numpy(), 1
        try:
            for clip, row in zip(clips.tolist(), rows, strict=True):
                if os.pwrite(self.file, row.tobytes(), clip * self.row.itemsize) < self.row.itemsize:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"cannot write {Path(self.path)} ({error.strerror}): free some space, or train without --token-cache; the "
            "last checkpoint is kept"
        )

"""Token cache: tokens and latent action codes of all clips on disk, so that the dynamics computes them only once.

The file holds one row per clip, and rows are filled when training first meets their clip. The name of the file depends
on the video, how it is cut into clips, and the weights that made the codes.
"""

import errno
import hashlib
import os
import shutil

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from genie_datasets.base.cache_dir import cache_dir
from genie_datasets.base.errors import UserError


class TokenCache:
    """Tokens and latent action codes of clips, in a sparse file of the user's cache directory.

    Args:
        key: everything that the codes depend on.
        num_clips, clip_length, num_patches: C, T and N.
        num_tokens, num_actions: sizes of the two codebooks.

    Raises:
        UserError: not enough disk space, or the file cannot be written.
    """

    def __init__(self, key: str, num_clips: int, clip_length: int, num_patches: int, num_tokens: int, num_actions: int):
        self.row = np.dtype(
            [
                ("actions", np.min_scalar_type(num_actions - 1), (clip_length - 1,)),
                ("tokens", np.min_scalar_type(num_tokens - 1), (clip_length, num_patches)),
                ("complete", np.uint8),  # the last byte, so that it is written after the codes
            ]
        )
        self.num_bytes = num_clips * self.row.itemsize
        self.path = cache_dir() / "tokens" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.bin"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            used = self.path.stat().st_blocks * 512 if self.path.exists() else 0
            free = shutil.disk_usage(self.path.parent).free
            if self.num_bytes - used > free:
                raise UserError(
                    f"not enough disk space: --token-cache needs {self.num_bytes - used} bytes "
                    f"({self.num_bytes / 1e9:.1f} GB in all) and {self.path.parent} has {free} free; train without it, "
                    "or set GENIE_ROBOTICS_CACHE to a folder on a larger disk"
                )
            self.file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            os.ftruncate(self.file, self.num_bytes)
        except OSError as error:
            raise self._unwritable(error) from None
        self.rows = np.memmap(self.path, self.row, "r", shape=(num_clips,))

    def close(self) -> None:
        os.close(self.file)

    def get(self, clips: np.ndarray) -> tuple[Int[Tensor, "B T N"], Int[Tensor, "B T-1"]] | None:
        """Tokens and latent actions of these clips, or None unless all of them are cached."""
        rows = self.rows[clips]
        if not rows["complete"].all():
            return None
        return torch.from_numpy(rows["tokens"].astype(np.int64)), torch.from_numpy(rows["actions"].astype(np.int64))

    def put(self, clips: np.ndarray, tokens: Int[Tensor, "B T N"], actions: Int[Tensor, "B T-1"]) -> None:
        """Stores the codes of these clips; raises UserError if the disk is full."""
        rows = np.zeros(len(clips), self.row)
        rows["tokens"], rows["actions"], rows["complete"] = tokens.cpu().numpy(), actions.cpu().numpy(), 1
        try:
            for clip, row in zip(clips.tolist(), rows, strict=True):
                if os.pwrite(self.file, row.tobytes(), clip * self.row.itemsize) < self.row.itemsize:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"cannot write {self.path} ({error.strerror}); free disk space, or train without --token-cache; "
            "the last checkpoint is kept"
        )

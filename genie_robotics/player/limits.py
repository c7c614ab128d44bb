"""Limits of what one browser, and all of them together, may use."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from genie_datasets.base.command_help import Option


@dataclass(frozen=True)
class Limits:
    """Limits of the player."""

    GROUP: ClassVar[str] = "limits"

    sessions: int = 10
    """Browsers that play at the same time."""
    idle_seconds: Annotated[float, Option("SECONDS")] = 900.0
    """Seconds without an action after which a browser is disconnected."""
    upload_bytes: int = 8 << 20
    """Size of an upload in bytes."""
    upload_pixels: int = 24_000_000
    """Pixels of an uploaded picture, checked before decoding."""
    upload_frames: int = 256
    """Frames read of an uploaded clip."""
    undo: int = 600
    """Steps that can be undone or saved."""
    branches: int = 8
    """Branches per session."""
    autoplay: int = 200
    """Actions of a typed sequence."""
    maskgit_steps: int = 64
    """Largest number of MaskGIT steps."""
    temperature: float = 4.0
    """Largest temperature."""

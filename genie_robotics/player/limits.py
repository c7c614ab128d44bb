"""What one browser, and all of them together, may ask of the machine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    sessions: int = 10
    """Players at once; a further one is told to wait."""
    idle_seconds: float = 900.0
    """After which a player who does nothing is sent away."""
    upload_bytes: int = 8 << 20
    upload_pixels: int = 24_000_000
    """Of an uploaded picture, as its header states them: looked at before it is decoded."""
    upload_frames: int = 256
    """Of an uploaded clip; what follows is not read."""
    undo: int = 600
    """Steps that can be taken back, and that a saved clip holds at most."""
    branches: int = 8
    autoplay: int = 200
    """Actions of one typed sequence."""
    maskgit_steps: int = 64
    temperature: float = 4.0

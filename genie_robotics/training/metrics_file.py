"""metrics.jsonl after a kill: cut back to the checkpoint from which training goes on."""

import json
from pathlib import Path

from genie_datasets.base.errors import UserError
from genie_robotics.run_folder import write_atomically


def truncate_metrics(path: Path, stage: str, step: int) -> int:
    """Drops the lines of `stage` after `step`, which will be written again, and a torn last line.

    All other lines stay byte for byte. The file is replaced as a whole, and only if something changes.

    Returns:
        The number of lines dropped.

    Raises:
        UserError: the file cannot be read or written.
    """
    try:
        before = path.read_bytes()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; make it readable or move it away") from None
    lines = before.splitlines(keepends=True)
    kept = [line for line in lines if not is_later(line, stage, step)]
    if kept and not kept[-1].endswith(b"\n"):
        if entry(kept[-1]) is None:
            kept.pop()
        else:
            kept[-1] += b"\n"  # whole but for its end: what follows must not be glued to it
    after = b"".join(kept)
    if after != before:
        write_atomically(path, after)
    return len(lines) - len(kept)


def is_later(line: bytes, stage: str, step: int) -> bool:
    found = entry(line)
    if found is None or found.get("stage") != stage:
        return False
    return isinstance(found.get("step"), int) and found["step"] > step


def entry(line: bytes) -> dict | None:
    try:
        found = json.loads(line)
    except ValueError:  # of decoding too
        return None
    return found if isinstance(found, dict) else None

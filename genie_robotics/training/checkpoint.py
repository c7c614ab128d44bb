"""RUN/state/{stage}.pt: all that resuming a stage needs.

Random numbers need no saving: every step seeds them from (seed, stage, step). The sampler's position is the step.
"""

import io
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genie_datasets.errors import UserError
from genie_robotics.run_folder import write_atomically


def training_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that the model's own file leaves out, such as the codebooks' counters."""
    stored = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name not in stored}


def save_state(path: Path, module: nn.Module, optimizers: list[dict], **more: Any) -> None:
    content = {"model": module.state_dict(), "buffers": training_buffers(module), "optimizers": optimizers, **more}
    box = io.BytesIO()
    torch.save(content, box)
    write_atomically(path, box.getvalue())


def load_state(path: Path, module: nn.Module) -> dict[str, Any] | None:
    """Loads the module in place and returns the rest of the state; None where there is no checkpoint."""
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(content["model"])
        buffers = dict(training_buffers(module))
        for name, value in content["buffers"].items():
            owner = module.get_submodule(name.rpartition(".")[0])
            setattr(owner, name.rpartition(".")[2], value.to(buffers[name].device))
    except Exception as error:  # torch.load raises many kinds for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be resumed from ({reason}); delete it to train this stage anew") from None
    return content

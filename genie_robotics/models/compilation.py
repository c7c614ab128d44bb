"""Compiled transformer blocks (torch.compile), and when that pays.

All blocks of one kind share one compiled program, because they differ only in their weights. On two CPU cores a program
takes 10 to 60 s the first time and 2 to 5 s from then on, since torch keeps programs on disk. A `nano` training step is
then 1.3 (float32) to 1.6 times as fast (bfloat16, docs/performance.md).
"""

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from genie_robotics.models.layers.st_transformer import STBlock


@contextmanager
def compiled_blocks(*modules: nn.Module) -> Iterator[None]:
    """Compiles the transformer blocks of `modules` inside the block, where they are called with few shapes."""
    blocks = [part for module in modules for part in module.modules() if isinstance(part, STBlock)]
    for block in blocks:
        block.compile(dynamic=False)
    try:
        yield
    finally:
        for block in blocks:
            block._compiled_call_impl = None  # torch has no public way back


def why_not_compiled(device: torch.device) -> str | None:
    """The lack that keeps torch.compile from working for `device` on this machine, in words; None if there is none."""
    if device.type == "cuda":
        return None if importlib.util.find_spec("triton") else "triton is not installed"
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        return "no C++ compiler"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "no header files of Python"
    return None

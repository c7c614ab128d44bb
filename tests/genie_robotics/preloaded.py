"""Imports of a training, made once in a process that then forks others: those of `ranks.py` and of `test_kill.py`."""

import importlib

for name in (
    "genie_robotics.training.commands",
    "genie_robotics.training.run",
    "genie_datasets.sources.mixture",
    "sklearn.cluster",  # k-means of the codebooks
    "tests.genie_robotics.conftest",
    "torch._dynamo",  # of the optimizers
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "tqdm",
):
    importlib.import_module(name)

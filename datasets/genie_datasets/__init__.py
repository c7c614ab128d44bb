"""genie_datasets reads robot video and gives action-free clips.

`open_source` opens any kind of source and gives one view of its episodes; `build_frame_cache` decodes them once;
`ClipDataset` and `EpochSampler` turn them into training batches. TensorFlow is imported only by the reference reader
(`reader="rlds"`) and by the RLDS writers.
"""

from importlib import import_module

from genie_datasets.base.errors import UserError

_HOME = {
    "open_source": "sources.opening",
    "Source": "sources.split",
    "Split": "sources.split",
    "Truth": "sources.truth",
    "FrameCache": "sources.frame_cache",
    "build_frame_cache": "writers.frame_cache",
    "ClipDataset": "clips.dataset",
    "ReferencedClips": "clips.references",
    "frame_step": "clips.dataset",
    "EpochSampler": "clips.sampler",
    "fit_frames": "base.fit",
}
__all__ = ["UserError", *_HOME]


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'genie_datasets' has no attribute '{name}'")
    return getattr(import_module(f"genie_datasets.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Quantizers behind one interface (base.py): vector quantization, finite scalar quantization."""

from genie_robotics.models.quantizers.base import Quantized, Quantizer
from genie_robotics.models.quantizers.config import FSQConfig, QuantizerConfig, VQConfig
from genie_robotics.models.quantizers.fsq import FiniteScalarQuantizer
from genie_robotics.models.quantizers.vq import VectorQuantizer

QUANTIZERS: dict[str, type[Quantizer]] = {"vq": VectorQuantizer, "fsq": FiniteScalarQuantizer}
"""The class of each `QuantizerConfig.kind`."""


def make_quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer that `config` describes."""
    return QUANTIZERS[config.kind](config)


__all__ = ["QUANTIZERS", "FSQConfig", "Quantized", "Quantizer", "QuantizerConfig", "VQConfig", "make_quantizer"]

"""Quantizers behind one interface: vector quantization, finite scalar quantization."""

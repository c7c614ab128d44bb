"""Layers of the three components: attention, the ST-transformer, patches."""

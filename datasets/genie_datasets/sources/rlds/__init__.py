"""Readers of RLDS/TFDS data sets: of TFRecord shards without TensorFlow, and the reference through TFDS and rlds."""

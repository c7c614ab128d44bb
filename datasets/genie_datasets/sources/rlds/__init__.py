"""RLDS/TFDS data sets: TFRecord shards without TensorFlow, and the reference reader through TFDS and rlds."""

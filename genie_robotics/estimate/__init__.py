"""Cost of a model before training: parameters, memory, operations and time."""

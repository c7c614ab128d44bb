"""What a model will cost, before anyone trains it: parameters, memory, operations, time."""

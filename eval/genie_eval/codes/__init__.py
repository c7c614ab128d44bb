"""What codes and true motion alone tell: usage, grounding, consistency, leakage, and the ladder of other codes."""

"""Which choices matter, and by how much? Variants of a recipe, trained with equal budget and measured alike."""

"""Dreams of the world model: quality of the pictures, and whether they follow the codes."""

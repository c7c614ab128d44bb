"""What the world model dreams: how good the pictures are, and whether they do what the codes say."""

"""Pictures of other kinds to start from: a set drawn by code, and a user's own folder."""

"""Weights & Biases: logging a run, what its dashboard shows, and the workspace."""

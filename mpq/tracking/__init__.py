"""Weights & Biases: logging a run, the contents of its dashboard, and the project's workspace."""

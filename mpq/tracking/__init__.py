"""Weights & Biases: logging a run, what a dashboard shows, and the project's workspace."""

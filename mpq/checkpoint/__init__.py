"""Packed checkpoints: bit-packed codes on disk, and their size."""

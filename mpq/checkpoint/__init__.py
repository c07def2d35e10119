"""Packed checkpoints: bit-packed codes on disk, loading them back, and their size."""

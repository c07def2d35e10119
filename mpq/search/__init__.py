"""Precision search and allocation: how many bits each site gets."""

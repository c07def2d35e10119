"""Precision search and allocation: which site gets how many bits."""

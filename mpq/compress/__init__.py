"""A packed folder in one call, from a float model or from a finished run."""

"""From a float model, or a finished run, to a packed folder in one call."""

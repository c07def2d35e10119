"""Pictures made from records: one file a kind of picture, `draw` turns systems into a matplotlib figure."""

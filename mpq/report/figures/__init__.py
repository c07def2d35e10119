"""Figures made from records: one module per kind of matplotlib figure."""

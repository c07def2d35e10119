"""Figures made from records: one module per kind, each drawing matplotlib figures."""

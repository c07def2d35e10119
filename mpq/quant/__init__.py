"""Quantizers, trained (LSQ, mixtures of precisions) or not (rounding, GPTQ), and the sites they attach to."""

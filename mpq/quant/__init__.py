"""Quantizers: LSQ fake quantization, the candidate mixture, the sites they attach to."""

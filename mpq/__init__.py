"""Mixed precision quantization of speech foundation models."""

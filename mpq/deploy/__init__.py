"""Compressed models outside of PyTorch: an ONNX file and what runs it."""

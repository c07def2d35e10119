"""Compressed models in use: transcribing files, exporting to ONNX, running without PyTorch."""

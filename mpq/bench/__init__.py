"""Benchmarks of speed, memory, file size and growth, beside other libraries, on the reader's own machine."""

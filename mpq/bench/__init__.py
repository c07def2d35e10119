"""Benchmarks of speed, memory, file size and growth against other libraries, on the user's own machine."""

"""What can be computed without training: sizes from shapes, and the projected cost of the paper's rows."""

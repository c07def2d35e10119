"""What can be computed without training: sizes from shapes, and the cost of the paper's rows."""

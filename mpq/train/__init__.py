"""Training with Lightning: recipes, stages, the loss, checkpoints, several devices."""

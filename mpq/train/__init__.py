"""Training: the Lightning module, distillation, callbacks."""

"""Training, evaluation, distillation, checkpoints."""

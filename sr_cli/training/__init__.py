"""Training: a run of stages from options, data, losses, checkpoints and validation."""

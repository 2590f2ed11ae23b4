"""Export of networks as artifacts and checkpoints, each verified in a fresh process."""

"""What running a search costs beside training, and which faults it survives."""

"""Families of checkpoints, one file each: a configuration map and a name map."""

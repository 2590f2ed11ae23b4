"""Export formats of an artifact, one file each, behind one protocol."""

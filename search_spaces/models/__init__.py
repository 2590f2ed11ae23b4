"""Torch modules built from an architecture and a workload."""

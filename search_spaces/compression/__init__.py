"""Transforms that change the kernels that run: bit-width, 2:4 sparsity, rank, pruning."""

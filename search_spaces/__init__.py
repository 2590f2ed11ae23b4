"""What a model is and how to build it: architectures, workloads, spaces, models, compression.

The modules directly in this package never import torch; ``models`` and ``compression`` do.
"""

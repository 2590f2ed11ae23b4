"""Samplers that ours is compared with, one adapter for each library."""

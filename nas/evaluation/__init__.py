"""Evaluation of candidates: stand-alone training or a supernet, then measurement."""

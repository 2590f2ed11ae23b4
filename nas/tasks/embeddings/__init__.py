"""Embeddings of texts: a checkpoint's vectors as targets, judged by its neighbours."""

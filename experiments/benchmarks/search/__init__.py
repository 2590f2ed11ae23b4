"""Samplers beside others: problems, peers, curves and tables of search quality."""

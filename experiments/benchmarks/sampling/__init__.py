"""Search quality beside other samplers: problems, peers, curves, tables."""

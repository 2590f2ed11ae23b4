"""From a candidate to its quality and joules: trained alone, or by a supernet."""

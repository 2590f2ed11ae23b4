"""Which candidates a search proposes, drops and stops, beside other samplers and rules."""

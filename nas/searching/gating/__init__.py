"""Drop candidates before they cost training: surrogates, the gate, and warm starts."""

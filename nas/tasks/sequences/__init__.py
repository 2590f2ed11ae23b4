"""Tasks on token sequences: language modelling, translation, question answering."""

"""Tasks on token sequences: language modelling, translation, summarisation, question answering."""

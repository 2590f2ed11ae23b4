"""Text classification: tables of texts, tokenizers."""

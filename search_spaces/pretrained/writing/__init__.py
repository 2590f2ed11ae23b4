"""Networks written in Hugging Face's format, for stock classes to load, or as GGUF."""

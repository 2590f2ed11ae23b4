"""Files of a checkpoint, as untrusted input: configuration, safetensors, tokenizer, the hub."""

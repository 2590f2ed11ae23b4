"""GGUF files of the Llama type: header, configuration, tensors and tokenizer, in and out."""

"""The parser, its errors, and completion for shells."""

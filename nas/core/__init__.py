"""Base utilities that every package may import: files, object stores, retry, typed records."""

"""Tokenizers and streaming detokenizers: text to token ids and back."""

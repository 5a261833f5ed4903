"""Whose turn is it? One client's life, from its first octet to its last."""

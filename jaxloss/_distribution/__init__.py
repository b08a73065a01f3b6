"""Losses on the class distribution of each position or element."""

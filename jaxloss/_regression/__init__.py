"""Losses on real-valued predictions."""

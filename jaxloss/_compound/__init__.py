"""Losses made of losses."""

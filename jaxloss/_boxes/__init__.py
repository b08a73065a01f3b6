"""Losses on paired bounding boxes."""

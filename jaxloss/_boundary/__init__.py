"""Losses on the boundaries of segmentation masks, by exact distance maps."""

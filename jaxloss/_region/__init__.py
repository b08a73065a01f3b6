"""Losses on the overlap of whole segmentation masks."""

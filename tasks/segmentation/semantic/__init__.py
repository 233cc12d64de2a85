"""Semantic segmentation with EoMT: a class for every pixel."""

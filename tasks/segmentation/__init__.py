"""Semantic segmentation with EoMT."""

"""Metrics that merge exactly over any distribution of the images."""

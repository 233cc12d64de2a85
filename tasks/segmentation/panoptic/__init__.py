"""Panoptic segmentation with EoMT: a segment for every object and every kind of ground."""

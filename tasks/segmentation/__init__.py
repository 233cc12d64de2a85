"""Segmentation with EoMT: semantic, instance and panoptic, three tasks of one model."""

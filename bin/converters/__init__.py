"""Converters of annotations into COCO json and mask files, and of weights into the LPIPS file."""

"""Readers of images and annotations; independent of training."""

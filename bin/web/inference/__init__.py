"""Predictions for uploaded images, in a process of its own."""

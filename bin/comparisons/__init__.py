"""Comparison of runs on the same validation images, with verdicts in words."""

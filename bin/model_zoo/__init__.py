"""The models table for `bin/models.py`: lists, downloads, checks."""

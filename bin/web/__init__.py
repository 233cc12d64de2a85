"""The studio: a page and an API to start, watch, compare and try runs. No torch in its process."""

"""The training engine: one loop, and everything it calls. Knows no task."""

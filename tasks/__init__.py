"""The tasks that plug into the engine; one folder each, the same files in each."""

"""What looks at the checkpoints of a run, and removes them."""

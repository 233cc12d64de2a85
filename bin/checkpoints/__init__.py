"""List, inspect, verify and prune the checkpoints of a run."""

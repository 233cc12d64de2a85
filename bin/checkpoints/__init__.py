"""List, inspect, verify, prune and consolidate the checkpoints of a run."""

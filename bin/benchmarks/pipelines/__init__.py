"""What `data` measures: ours stage by stage, others that do the same work, and the memory of an index."""

"""Jobs: the queue, detached processes and their devices."""

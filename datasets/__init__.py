"""Reading pictures and annotations; nothing here knows about training."""

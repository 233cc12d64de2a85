"""Reading images and annotations; nothing here knows about training."""

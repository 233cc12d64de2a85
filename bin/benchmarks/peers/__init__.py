"""The `peers` benchmark: transformers' Trainer and timm against visionloop."""

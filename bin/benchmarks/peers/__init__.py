"""The `peers` benchmark: transformers' Trainer and timm beside visionloop."""

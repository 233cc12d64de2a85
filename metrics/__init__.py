"""Metrics: counts that merge exactly."""

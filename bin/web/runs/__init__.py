"""Runs below the roots: their index, live events, records, weights and comparisons."""

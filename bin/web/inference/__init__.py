"""Predictions of trained models, in processes beside the server."""

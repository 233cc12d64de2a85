"""The endpoints below /api/v1."""

"""Who may call the API, and which files it may name."""

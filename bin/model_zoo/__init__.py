"""The model zoo of `bin/models.py`: list, show, download, verify."""

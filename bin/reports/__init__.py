"""What `bin/report.py` does: run folders read into one object, the object drawn by one page."""

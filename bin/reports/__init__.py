"""HTML reports of runs: run folders read into one object, which a self-contained page draws."""

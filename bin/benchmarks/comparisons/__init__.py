"""The sides of `compare`, their recipes, and the record of their runs."""

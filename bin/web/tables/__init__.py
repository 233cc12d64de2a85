"""Tables of tasks, models, metrics and settings, and the data sets below the roots."""

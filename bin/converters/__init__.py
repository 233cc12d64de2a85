"""What reads the annotations of other layouts, and what writes ours."""

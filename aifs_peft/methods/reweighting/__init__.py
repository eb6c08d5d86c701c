"""Methods that change which examples count, and how much."""

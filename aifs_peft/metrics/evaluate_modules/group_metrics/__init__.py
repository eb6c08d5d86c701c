"""The `group_metrics` module; see `group_metrics.py` beside this file."""

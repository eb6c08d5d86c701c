"""Cheap guesses at which examples go against a shortcut."""

"""Unlabelled examples: a second population in which attribute and label go together less shows a weak attribute."""

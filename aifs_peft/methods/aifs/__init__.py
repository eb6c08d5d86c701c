"""AIFS: what happens to a batch, and how the directions are learned (by discovery, or by the published recipe)."""

"""Latents that are read in blocks and never held whole: where they come from, and discovery on them.

To read it in the order in which data flow: `source` (what discovery reads), `arrays`, `columns`, `batches`, `shards`
and `processes` (where latents come from), `held` (the rows that are held in memory), `everywhere` (from those to all).
"""

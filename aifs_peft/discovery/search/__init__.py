"""The search: one attribute (two classes, or more), then further attributes beside it."""

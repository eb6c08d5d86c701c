"""Modules for `evaluate.load` on a local path; nothing here is imported by the package."""

"""Journeys run commands."""

from quiet import libraries_speak_again  # noqa: F401 - for every test of this folder

"""Searches over recipes. Nothing is here yet."""

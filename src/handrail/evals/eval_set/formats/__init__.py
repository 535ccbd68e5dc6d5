"""Eval sets of other tools, read and written."""

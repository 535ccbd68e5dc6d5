"""Executes the trials of an eval run, each committed as it ends."""

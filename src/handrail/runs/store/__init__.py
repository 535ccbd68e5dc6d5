"""Storing runs: their rows, outcomes, messages, and what resumes a paused run."""

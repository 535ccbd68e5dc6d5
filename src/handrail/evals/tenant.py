"""Whose the evals' own runs are."""

TENANT = "evals"
"""The tenant of every trial's run, so that trials do not count among a product's own runs."""

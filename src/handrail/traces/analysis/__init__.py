"""Analyses of spans: tree, critical path, possible parallelism, cost drivers and waste. Pure functions."""

"""Trials of every case, each committed as it ends; eval runs over time, and those that are baselines."""

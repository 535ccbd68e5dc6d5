"""The gate: whether a change passes, and how many trials that takes."""

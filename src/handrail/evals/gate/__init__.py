"""The gate: whether a change passes, and how many trials it takes to tell."""

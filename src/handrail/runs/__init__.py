"""One governed run, from input to outcome."""

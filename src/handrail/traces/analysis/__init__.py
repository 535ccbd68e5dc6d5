"""What a trace tells: its tree, critical path, possible parallelism, cost drivers and waste. Pure functions."""

"""What the pages show, computed from what the queries return. Pure functions."""

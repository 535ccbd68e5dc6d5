"""Measurements, side by side with peers. Each module or package here that has `figures()` is a bench of that name."""

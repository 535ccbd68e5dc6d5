"""Benchmarks, side by side with peers. Each module or package here that has `figures()` is a benchmark of that name."""

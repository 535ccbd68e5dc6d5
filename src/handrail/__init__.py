"""Handrail: what your agent holds on to in production."""

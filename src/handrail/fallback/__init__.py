"""The route of a run, decided before any model call, and its one stricter retry after malformed output."""

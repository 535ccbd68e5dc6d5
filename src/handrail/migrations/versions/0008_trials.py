"""Evals: several trials of a case, what went wrong around them, and cached responses."""

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    pass

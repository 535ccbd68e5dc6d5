"""Evals: what people say of trials, to calibrate a judge by."""

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    pass

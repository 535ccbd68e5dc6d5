"""Access: people, their sessions, and keys."""

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    pass

"""Dashboard users and their sessions, as values."""

import hashlib
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

SESSION_LIFETIME = timedelta(hours=12)


@dataclass(frozen=True, kw_only=True)
class DashboardUser:
    """Somebody who logs in to the server with a password.

    Attributes:
        name: The login name, which is also the name in `[roles]`.
        tenant: The only tenant whose data they see; None for an operator, who sees every tenant.
        added_at: When the user was added.
    """

    name: str
    tenant: str | None
    added_at: datetime


@dataclass(frozen=True, kw_only=True)
class Session:
    """A browser that is logged in, until `expires_at`."""

    user: DashboardUser
    expires_at: datetime


def new_session_token() -> str:
    """A session cookie's value: 256 random bits."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """What the store keeps of a session token, so that nobody who reads the store can log in with it."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def roles_of(name: str, roles: Mapping[str, Collection[str]]) -> frozenset[str]:
    """The roles of a user.

    Args:
        name: The user's name.
        roles: The names of each role's members, as `[roles]` in `handrail.toml` lists them.
    """
    return frozenset(role for role, members in roles.items() if name in members)

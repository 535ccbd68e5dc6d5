"""People and their sessions, as values."""

import hashlib
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

SESSION = timedelta(hours=12)
"""How long a login lasts."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody with a password. A `tenant` of None means an operator, who sees every tenant."""

    name: str
    tenant: str | None
    added_at: datetime


@dataclass(frozen=True, kw_only=True)
class Session:
    """A login that lasts until `expires_at`."""

    person: Person
    expires_at: datetime


def new_token() -> str:
    """What a browser shows to be known again: 256 random bits."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is kept of a token, so that who reads the store cannot log in with it."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def roles_of(person: str, roles: Mapping[str, Collection[str]]) -> frozenset[str]:
    """The roles that a person has; `roles` gives each role its people, as `handrail.toml` does."""
    return frozenset(role for role, people in roles.items() if person in people)

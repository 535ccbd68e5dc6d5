"""Who may come in: people with passwords and sessions, programs with keys, each for one tenant or for all."""

from .errors import NotAllowed, TooManyTries, WrongCredentials
from .keys import SCOPES, ApiKey, Scope, check_key, check_scope, key_id_of, new_key, read_scopes
from .login import log_in, new_person
from .people import SESSION, Person, Session, new_token, roles_of
from .store import (
    add_key,
    add_person,
    anybody,
    close_session,
    list_keys,
    list_people,
    load_key,
    load_session,
    remove_person,
    revoke_key,
    touch_is_due,
    touch_key,
)

__all__ = [
    "SCOPES",
    "SESSION",
    "ApiKey",
    "NotAllowed",
    "Person",
    "Scope",
    "Session",
    "TooManyTries",
    "WrongCredentials",
    "add_key",
    "add_person",
    "anybody",
    "check_key",
    "check_scope",
    "close_session",
    "key_id_of",
    "list_keys",
    "list_people",
    "load_key",
    "load_session",
    "log_in",
    "new_key",
    "new_person",
    "new_token",
    "read_scopes",
    "remove_person",
    "revoke_key",
    "roles_of",
    "touch_is_due",
    "touch_key",
]

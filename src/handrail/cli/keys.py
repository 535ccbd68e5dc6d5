"""`handrail keys` and `handrail people`: who may come in."""

import sys
from typing import Annotated

import typer

from handrail.access.api_keys import SCOPES, ApiKey, new_key, read_scopes
from handrail.access.login import new_person
from handrail.access.store import add_key, list_keys, list_people, remove_person, revoke_key
from handrail.access.users import roles_of
from handrail.kernel.errors import BadInput

from .output import AsJson, console, excerpt, print_json, show_time, table
from .runtime import opened

keys = typer.Typer(help="API keys: what a program shows to come in.", no_args_is_help=True)
people = typer.Typer(help="People with a password: who may log in.", no_args_is_help=True)

EVERY = "*"
Tenant = Annotated[str, typer.Option(help=f"Whose data it opens; '{EVERY}' is every tenant's.")]


@keys.command("create")
def create(
    tenant: Tenant,
    label: Annotated[str, typer.Option(help="What it is for, as lists show it.")],
    scope: Annotated[list[str], typer.Option(help=f"What it may do, one or more of: {', '.join(SCOPES)}.")],
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once, here, and kept as a hash only.

    `decide` lets a program decide approvals in the name of whom it says: give it to one that knows who its people are.
    Example: `handrail keys create --tenant acme --label "shop backend" --scope run --scope read`
    """
    with opened() as runtime:
        text, key = new_key(None if tenant == EVERY else tenant, label, read_scopes(scope), runtime.clock.now())
        runtime.database.write_now(add_key(key))
    if as_json:
        print_json({"key": text, **_shown(key)})
        return
    console().print(text, soft_wrap=True)
    console(stderr=True).print("[dim]Keep it now: it is not shown again. It goes into `Authorization: Bearer ...`.[/]")


@keys.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None, as_json: AsJson = False
) -> None:
    """The keys there are, by their beginnings. Example: `handrail keys list`"""
    with opened() as runtime:
        found = runtime.database.read_now(lambda conn: list_keys(conn, tenant))
    if as_json:
        print_json([_shown(each) for each in found])
        return
    if not found:
        console().print("No keys. `handrail keys create` makes one.")
        return
    shown = table("key", "tenant", "label", "may", "made", "last used", "revoked")
    shown.columns[0].no_wrap = True
    for each in found:
        shown.add_row(
            each.prefix,
            excerpt(each.tenant or EVERY, 40),
            excerpt(each.label, 40),
            ", ".join(sorted(each.scopes)),
            show_time(each.made_at),
            "never" if each.last_used_at is None else show_time(each.last_used_at),
            "" if each.revoked_at is None else show_time(each.revoked_at),
        )
    console().print(shown)


@keys.command("revoke")
def revoke(key: Annotated[str, typer.Argument(help="A key's beginning, from `handrail keys list`.")]) -> None:
    """Let a key open nothing from now on. Example: `handrail keys revoke hr_9k2mx4q7vd1t`"""
    # Whoever pastes the whole key means the same.
    key_id = key.removeprefix("hr_").partition("_")[0]
    with opened() as runtime:
        runtime.database.write_now(revoke_key(key_id, runtime.clock.now()))
    console().print(f"hr_{excerpt(key_id, 40)} is revoked.")


@people.command("add")
def add(
    name: Annotated[str, typer.Argument(help="The name to log in with, the same as in [roles].")],
    tenant: Tenant = EVERY,
) -> None:
    """Let a person log in. The password is asked for, or read from standard input: the first line.

    Example: `handrail people add ann --tenant acme`
    """
    password = _password()
    with opened() as runtime:
        op = new_person(name, password, None if tenant == EVERY else tenant, runtime.clock.now())
        runtime.database.write_now(op)
    console().print(f"{excerpt(name, 200)} may log in.")


@people.command("list")
def list_all(as_json: AsJson = False) -> None:
    """Who may log in, and their roles. Example: `handrail people list`"""
    with opened() as runtime:
        found, roles = runtime.database.read_now(list_people), runtime.settings.roles
    if as_json:
        print_json(
            [
                {
                    "name": each.name,
                    "tenant": each.tenant,
                    "added_at": each.added_at,
                    "roles": sorted(roles_of(each.name, roles)),
                }
                for each in found
            ]
        )
        return
    if not found:
        console().print("Nobody. `handrail people add NAME` lets somebody log in.")
        return
    shown = table("name", "tenant", "roles", "since")
    for each in found:
        has = ", ".join(sorted(roles_of(each.name, roles)))
        shown.add_row(
            excerpt(each.name, 60), excerpt(each.tenant or EVERY, 40), excerpt(has, 80), show_time(each.added_at)
        )
    console().print(shown)


@people.command("remove")
def remove(name: Annotated[str, typer.Argument(help="Who may not log in any more.")]) -> None:
    """Let a person in no longer, and end their sessions. Example: `handrail people remove ann`"""
    with opened() as runtime:
        runtime.database.write_now(remove_person(name))
    console().print(f"{excerpt(name, 200)} may not log in any more.")


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise BadInput("standard input: no password in its first line")
    return line


def _shown(key: ApiKey) -> dict[str, object]:
    return {
        "prefix": key.prefix,
        "tenant": key.tenant,
        "label": key.label,
        "scopes": sorted(key.scopes),
        "made_at": key.made_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }

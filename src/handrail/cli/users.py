"""`handrail users`: dashboard users, who log in to the server."""

import sys
from typing import Annotated

import typer

from handrail.access.login import new_user
from handrail.access.store import list_users, remove_user
from handrail.access.users import roles_of
from handrail.kernel.errors import BadInput

from .options import AsJson
from .output import console, excerpt, format_time, print_json, table
from .runtime import open_runtime

app = typer.Typer(help="Dashboard users, who log in to the server.", no_args_is_help=True)

EVERY_TENANT = "*"


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="The login name, which is also the name in [roles].")],
    tenant: Annotated[
        str, typer.Option(help=f"Whose data the user sees; '{EVERY_TENANT}' for every tenant.")
    ] = EVERY_TENANT,
) -> None:
    """Add a user. The command prompts for the password, or reads it from the first line of standard input.

    Example: `handrail users add ann --tenant acme`
    """
    password = _read_password()
    with open_runtime() as runtime:
        tenant_or_all = None if tenant == EVERY_TENANT else tenant
        runtime.database.write_now(new_user(name, password, tenant_or_all, runtime.clock.now()))
    console().print(f"Added {excerpt(name, 200)}.")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the users and their roles. Example: `handrail users list`"""
    with open_runtime() as runtime:
        users, roles = runtime.database.read_now(list_users()), runtime.settings.roles
    if as_json:
        print_json(
            [
                {
                    "name": user.name,
                    "tenant": user.tenant,
                    "added_at": user.added_at,
                    "roles": sorted(roles_of(user.name, roles)),
                }
                for user in users
            ]
        )
        return
    if not users:
        console().print("No users. `handrail users add NAME` adds one.")
        return
    rows = table("name", "tenant", "roles", "added")
    for user in users:
        roles_text = ", ".join(sorted(roles_of(user.name, roles)))
        tenant = excerpt(user.tenant or EVERY_TENANT, 40)
        rows.add_row(excerpt(user.name, 60), tenant, excerpt(roles_text, 80), format_time(user.added_at))
    console().print(rows)


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="The user's name.")]) -> None:
    """Remove a user and end their sessions. Example: `handrail users remove ann`"""
    with open_runtime() as runtime:
        runtime.database.write_now(remove_user(name))
    console().print(f"Removed {excerpt(name, 200)}.")


def _read_password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise BadInput("standard input: the first line has no password")
    return password

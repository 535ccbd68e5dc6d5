"""`handrail keys`: API keys for programs."""

from typing import Annotated

import typer

from handrail.access.api_keys import SCOPES, ApiKey, new_key, read_scopes
from handrail.access.store import add_key, list_keys, revoke_key

from .options import AsJson
from .output import console, excerpt, format_time, print_json, table
from .runtime import open_runtime

app = typer.Typer(help="API keys for programs that call the server.", no_args_is_help=True)

EVERY_TENANT = "*"


@app.command("create")
def create(
    tenant: Annotated[
        str, typer.Option(help=f"Whose data the key gives access to; '{EVERY_TENANT}' for every tenant.")
    ],
    label: Annotated[str, typer.Option(help="What the key is for, as lists show it.")],
    scope: Annotated[
        list[str], typer.Option(help=f"What the key may do; can be repeated. One of {', '.join(SCOPES)}.")
    ],
    as_json: AsJson = False,
) -> None:
    """Create a key and print it. It is shown only once; the store keeps a hash.

    A key with the scope `decide` decides approvals in the name of whoever the request names. Give it only to a program
    that authenticates its users.

    Example: `handrail keys create --tenant acme --label "shop backend" --scope run --scope read`
    """
    with open_runtime() as runtime:
        tenant_or_all = None if tenant == EVERY_TENANT else tenant
        text, key = new_key(tenant_or_all, label, read_scopes(scope), runtime.clock.now())
        runtime.database.write_now(add_key(key))
    if as_json:
        print_json({"key": text, **_to_json(key)})
        return
    console().print(text, soft_wrap=True)
    console(stderr=True).print("[dim]Save it now, it is not shown again. Send it as `Authorization: Bearer ...`.[/]")


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Only the keys of this tenant.")] = None, as_json: AsJson = False
) -> None:
    """List the keys, by their prefixes. Example: `handrail keys list`"""
    with open_runtime() as runtime:
        keys = runtime.database.read_now(list_keys(tenant))
    if as_json:
        print_json([_to_json(key) for key in keys])
        return
    if not keys:
        console().print("No keys. `handrail keys create` makes one.")
        return
    rows = table("key", "tenant", "label", "scopes", "created", "last used", "revoked")
    rows.columns[0].no_wrap = True
    for key in keys:
        rows.add_row(
            key.prefix,
            excerpt(key.tenant or EVERY_TENANT, 40),
            excerpt(key.label, 40),
            ", ".join(sorted(key.scopes)),
            format_time(key.created_at),
            "never" if key.last_used_at is None else format_time(key.last_used_at),
            "" if key.revoked_at is None else format_time(key.revoked_at),
        )
    console().print(rows)


@app.command("revoke")
def revoke(key: Annotated[str, typer.Argument(help="The key's prefix, from `handrail keys list`.")]) -> None:
    """Revoke a key, at once and in every process. Example: `handrail keys revoke hr_9k2mx4q7vd1t`"""
    # The whole key is accepted as well, since that is what people have at hand.
    key_id = key.removeprefix("hr_").partition("_")[0]
    with open_runtime() as runtime:
        runtime.database.write_now(revoke_key(key_id, runtime.clock.now()))
    console().print(f"Revoked hr_{excerpt(key_id, 40)}.")


def _to_json(key: ApiKey) -> dict[str, object]:
    return {
        "prefix": key.prefix,
        "tenant": key.tenant,
        "label": key.label,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }

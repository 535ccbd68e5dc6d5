"""`handrail spend`: where users and tenants stand below their ceilings."""

from typing import Annotated

import typer

from handrail.ceilings.ledger_queries import spending
from handrail.evals.tenant import TENANT as EVALS
from handrail.kernel.money import NanoUsd, show_usd

from .output import AsJson, console, excerpt, print_json, show_time, table
from .runtime import opened


def spend(
    tenant: Annotated[str | None, typer.Option(help=f"Only this tenant's; '{EVALS}' are the trials'.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """What users' days and tenants' months have spent and hold, and where they stop. Example: `handrail spend`"""
    with opened() as runtime:
        now, limits = runtime.clock.now(), runtime.limits
        found = runtime.database.read_now(
            lambda conn: spending(conn, tenant=tenant, now=now, limits=limits, limit=limit)
        )
    if as_json:
        print_json(found)
        return
    if not found:
        console().print("Nothing is spent in these days and months. `handrail demo` makes some runs.")
        return
    numbers = ("spent", "held", "stops at")
    shown = table("whose", "", *numbers, "resets", right=numbers)
    for each in found:
        whose = each.tenant if each.scope == "tenant" else f"{each.tenant}/{each.user}"
        shown.add_row(
            excerpt(whose, 60),
            "month" if each.scope == "tenant" else "day",
            show_usd(each.spent.cost),
            show_usd(each.held.cost),
            "no ceiling" if each.cutoff is None else show_usd(NanoUsd(each.cutoff)),
            show_time(each.window.end) if each.window.end else "",
        )
    console().print(shown)

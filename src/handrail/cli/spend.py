"""`handrail spend`: what users and tenants have spent, and their ceilings."""

from handrail.ceilings.ledger_queries import load_spending
from handrail.kernel.money import NanoUsd, format_usd

from .options import AsJson, Limit, Tenant
from .output import console, excerpt, format_time, print_json, table
from .runtime import open_runtime


def spend(
    tenant: Tenant = None,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """List what users have spent today and tenants this month, what is held for running requests, and the cutoffs.

    Example: `handrail spend --tenant acme`
    """
    with open_runtime() as runtime:
        now, limits = runtime.clock.now(), runtime.limits
        balances = runtime.database.read_now(load_spending(tenant=tenant, now=now, limits=limits, limit=limit))
    if as_json:
        print_json(balances)
        return
    if not balances:
        console().print("Nothing was spent today or this month. `handrail demo` starts some runs.")
        return
    numbers = ("spent", "held", "cutoff")
    rows = table("account", "window", *numbers, "resets", right=numbers)
    for balance in balances:
        account = balance.tenant if balance.scope == "tenant" else f"{balance.tenant}/{balance.user}"
        rows.add_row(
            excerpt(account, 60),
            "month" if balance.scope == "tenant" else "day",
            format_usd(balance.spent.cost),
            format_usd(balance.held.cost),
            "no ceiling" if balance.cutoff is None else format_usd(NanoUsd(balance.cutoff)),
            format_time(balance.window.end) if balance.window.end else "",
        )
    console().print(rows)

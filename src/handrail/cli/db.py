"""`handrail db`: the store's tables, and what is kept in them."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from handrail.config.settings import load_settings
from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import store_url
from handrail.kernel.db.schema import upgrade
from handrail.kernel.errors import BadInput
from handrail.review.approvals.store import forget_approvals
from handrail.review.feedback import forget_verdicts
from handrail.runs.store.erasure import UserRuns, forget_runs, runs_of_user
from handrail.traces.store.retention import (
    BATCH,
    Removed,
    count_old,
    free_bytes,
    old_payloads,
    old_spans,
    remove_payloads,
    remove_spans,
    remove_user,
    traces_of_user,
)

from .output import AsJson, console, excerpt, print_json
from .runtime import opened

app = typer.Typer(help="The store.", no_args_is_help=True)
_AGE = re.compile(r"([1-9]\d{0,4})([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_RUNS_AT_ONCE = 50
_WORTH_IT = 64 * 1024 * 1024
"""Less room than this is not worth the while of a VACUUM, which writes the whole file anew."""

Advance = Callable[[int], None]


@app.callback()
def db() -> None:
    """The store."""


@app.command("upgrade")
def upgrade_tables(as_json: AsJson = False) -> None:
    """Bring the store's tables up to date. SQLite does so by itself when it is opened.

    Example: `HANDRAIL_STORE=postgresql://handrail@db/handrail handrail db upgrade`
    """
    settings = load_settings()
    url = store_url(settings.store, settings.base)
    before, after = upgrade(url)
    if as_json:
        print_json({"store": url.render_as_string(), "before": before, "after": after})
    elif before == after:
        console().print(f"Up to date: tables {after}.")
    else:
        console().print(f"Upgraded: tables {before or 'none'} to {after}.")


@app.command("prune")
def prune(
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Traces that ended before this, such as 90d (h, d, w).")
    ],
    payloads: Annotated[
        str | None, typer.Option(metavar="AGE", help="What was said in traces that ended before this; a shorter age.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove old traces; the figures made of them, runs and their outcomes stay.

    Example: `handrail db prune --older-than 90d --payloads 30d`
    """
    with opened() as runtime:
        database, now = runtime.database, runtime.clock.now()
        spans_before, said_before = now - _age(older_than), now - _age(payloads or older_than)
        if said_before < spans_before:
            raise BadInput("--payloads is longer than --older-than: what was said goes with its span at the latest")
        found = database.read_now(lambda conn: count_old(conn, spans_before))
        said = database.read_now(lambda conn: count_old(conn, said_before)).payloads
        if not dry_run:
            with _watched(found.spans + said - found.payloads, hidden=as_json) as advance:
                found = _removed_spans(database, spans_before, advance)
                found += _removed_payloads(database, said_before, advance) if payloads else Removed()
        else:
            found = Removed(found.traces, found.spans, said)
        free = database.read_now(free_bytes)
    if as_json:
        print_json({"removed": None if dry_run else found, "would_remove": found if dry_run else None, "free": free})
        return
    what = "Would remove" if dry_run else "Removed"
    console().print(f"{what} {found.traces:,} traces, {found.spans:,} spans and {found.payloads:,} payloads.")
    _say_free(free)


@app.command("forget")
def forget(
    user: Annotated[str, typer.Option(help="Whose.")],
    tenant: Annotated[str, typer.Option(help="The user's tenant.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove everything that one user said and was told: runs, traces, messages, verdicts, what was to be approved.

    What it cost stays in the books. Example: `handrail db forget --user u-17 --tenant acme`
    """
    with opened() as runtime:
        database, now = runtime.database, runtime.clock.now()
        runs = database.read_now(lambda conn: runs_of_user(conn, tenant, user, now))
        traces = dict(database.read_now(lambda conn: traces_of_user(conn, tenant, user)))
        whole = len(runs.ended) + sum(traces.values())
        if whole and not yes:
            _ask(user, tenant, runs, traces, as_json)
        with _watched(whole, hidden=as_json) as advance:
            gone = _forgotten_runs(database, runs, now, advance)
            removed = _forgotten_spans(database, tenant, user, traces, advance)
    gone.update(asdict(removed))
    if as_json:
        print_json({"removed": gone, "under_way": runs.under_way})
        return
    if not whole:
        console().print(f"Nothing is stored of user {excerpt(user, 60)} of tenant {excerpt(tenant, 60)}.")
    else:
        told = ", ".join(f"{count:,} {table.replace('_', ' ')}" for table, count in gone.items() if count)
        console().print(f"Removed: {told}. What it cost stays in the books.")
    if runs.under_way:
        console().print(f"{runs.under_way:,} runs are under way: run this again once they have ended.")


def _age(text: str) -> timedelta:
    match = _AGE.fullmatch(text)
    if match is None:
        raise BadInput(f"{text!r} is no age; write a whole number of hours, days or weeks: 36h, 90d, 12w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


@contextmanager
def _watched(whole: int, *, hidden: bool) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = console()
    with Progress(*columns, console=screen, disable=hidden or not screen.is_terminal, transient=True) as progress:
        bar = progress.add_task("removing", total=whole)
        yield lambda count: progress.update(bar, advance=count)


def _removed_spans(database: Database, before: datetime, advance: Advance) -> Removed:
    removed = Removed()
    while keys := database.read_now(lambda conn: old_spans(conn, before)).keys:
        [gone] = database.write_now(remove_spans(keys))
        removed += gone
        advance(gone.spans)
    return removed


def _removed_payloads(database: Database, before: datetime, advance: Advance) -> Removed:
    removed, from_ns = Removed(), 0
    while (page := database.read_now(partial(old_payloads, before=before, from_ns=from_ns))).keys:
        [gone] = database.write_now(remove_payloads(page.keys))
        removed, from_ns = removed + gone, page.last_ns
        advance(gone.payloads)
    return removed


def _forgotten_runs(database: Database, runs: UserRuns, now: datetime, advance: Advance) -> Counter[str]:
    gone: Counter[str] = Counter()
    for first in range(0, len(runs.ended), _RUNS_AT_ONCE):
        some = runs.ended[first : first + _RUNS_AT_ONCE]
        by_table, approvals, verdicts = database.write_now(
            forget_runs(some, now), forget_approvals(some), forget_verdicts(some)
        )
        gone.update({**by_table, "approvals_emptied": approvals, "verdicts": verdicts})
        advance(len(some))
    return gone


def _forgotten_spans(
    database: Database, tenant: str, user: str, traces: Mapping[str, int], advance: Advance
) -> Removed:
    removed = Removed()
    for some in _batches(traces):
        [gone] = database.write_now(remove_user(tenant, user, some))
        removed += gone
        advance(gone.spans)
    return removed


def _batches(traces: Mapping[str, int]) -> Iterator[list[str]]:
    """Traces whose spans are about a batch together."""
    some: list[str] = []
    spans = 0
    for trace_id, count in traces.items():
        some.append(trace_id)
        spans += count
        if spans >= BATCH:
            yield some
            some, spans = [], 0
    if some:
        yield some


def _ask(user: str, tenant: str, runs: UserRuns, traces: Mapping[str, int], as_json: bool) -> None:
    if as_json:
        raise BadInput("this removes for good, and cannot ask where --json is given; say --yes")
    console().print(
        f"User {excerpt(user, 60)} of tenant {excerpt(tenant, 60)} has {len(runs.ended):,} runs and "
        f"{sum(traces.values()):,} spans in {len(traces):,} traces."
    )
    typer.confirm("Remove them for good?", abort=True)


def _say_free(free: int | None) -> None:
    if free is not None and free >= _WORTH_IT:
        room = f"{free / 1e6:,.0f} MB inside the file are free for new rows."
        console().print(f"{room} To give them back to the disk, stop what uses the store and let SQLite VACUUM it.")

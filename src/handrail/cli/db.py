"""`handrail db`: upgrades the store's tables, removes old traces, and erases a user's data."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from handrail.config.sources import load_settings
from handrail.kernel.db.database import Database
from handrail.kernel.db.engine import describe_store, store_url
from handrail.kernel.db.schema import upgrade
from handrail.kernel.errors import BadInput
from handrail.review.approvals.store import erase_approvals
from handrail.review.feedback import erase_feedback
from handrail.runs.store.erasure import UserRuns, erase_runs, runs_of_user
from handrail.traces.store.retention import (
    MAX_REMOVED_SPANS,
    RemovedRows,
    count_old,
    free_bytes,
    old_payloads,
    old_spans,
    remove_payloads,
    remove_spans,
    remove_user_spans,
    traces_of_user,
)

from .options import AsJson
from .output import console, excerpt, print_json
from .runtime import open_runtime

app = typer.Typer(help="The store: upgrade it, remove old traces, erase a user's data.", no_args_is_help=True)
_AGE = re.compile(r"([1-9]\d{0,4})([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_ERASED_RUNS = 50
"""Runs that one transaction erases."""
_VACUUM_BYTES = 64 * 1024 * 1024
"""The least free space worth a VACUUM, which rewrites the whole file."""

Advance = Callable[[int], None]


@app.callback()
def db() -> None:
    """The store: upgrade it, remove old traces, erase a user's data."""


@app.command("upgrade")
def upgrade_tables(as_json: AsJson = False) -> None:
    """Upgrade the store's tables to this version of Handrail. A SQLite store is upgraded whenever it is opened.

    Example: `HANDRAIL_STORE=postgresql://handrail@db/handrail handrail db upgrade`
    """
    settings = load_settings()
    url = store_url(settings.store, settings.base)
    before, after = upgrade(url)
    if as_json:
        print_json({"store": describe_store(url), "before": before, "after": after})
    elif before == after:
        console().print(f"Up to date: tables {after}.")
    else:
        console().print(f"Upgraded: tables {before or 'none'} to {after}.")


@app.command("prune")
def prune(
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Remove traces that ended longer ago than this: 36h, 90d, 12w.")
    ],
    payloads: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Remove inputs and outputs of spans that ended longer ago; a shorter age."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be removed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove old traces. Statistics, runs and their outcomes are kept.

    Example: `handrail db prune --older-than 90d --payloads 30d`
    """
    with open_runtime() as runtime:
        database, now = runtime.database, runtime.clock.now()
        spans_before, payloads_before = now - _parse_age(older_than), now - _parse_age(payloads or older_than)
        if payloads_before < spans_before:
            raise BadInput("--payloads is longer than --older-than, but a payload goes with its span at the latest")
        old = database.read_now(count_old(spans_before))
        old_payload_count = database.read_now(count_old(payloads_before)).payloads
        if dry_run:
            removed = RemovedRows(old.traces, old.spans, old_payload_count)
        else:
            with _progress(old.spans + old_payload_count - old.payloads, hidden=as_json) as advance:
                removed = _remove_spans(database, spans_before, advance)
                removed += _remove_payloads(database, payloads_before, advance) if payloads else RemovedRows()
        free = database.read_now(free_bytes())
    if as_json:
        print_json(
            {"removed": None if dry_run else removed, "would_remove": removed if dry_run else None, "free": free}
        )
        return
    verb = "Would remove" if dry_run else "Removed"
    console().print(f"{verb} {removed.traces:,} traces, {removed.spans:,} spans and {removed.payloads:,} payloads.")
    _print_free_space(free)


@app.command("forget")
def forget(
    user: Annotated[str, typer.Option(help="The user whose data is erased.")],
    tenant: Annotated[str, typer.Option(help="The user's tenant.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a user's data: runs, traces, messages, feedback and approvals. What the user spent stays in the ledger.

    Example: `handrail db forget --user u-17 --tenant acme`
    """
    with open_runtime() as runtime:
        database, now = runtime.database, runtime.clock.now()
        runs = database.read_now(runs_of_user(tenant, user, now))
        traces = dict(database.read_now(traces_of_user(tenant, user)))
        total = len(runs.ended) + sum(traces.values())
        if total and not yes:
            _confirm(user, tenant, runs, traces, as_json)
        with _progress(total, hidden=as_json) as advance:
            counts = _erase_runs(database, runs, now, advance)
            counts.update(asdict(_erase_spans(database, tenant, user, traces, advance)))
    if as_json:
        print_json({"removed": counts, "running": runs.under_way})
        return
    if not total:
        console().print(f"Nothing is stored about user {excerpt(user, 60)} of tenant {excerpt(tenant, 60)}.")
    else:
        listed = ", ".join(f"{count:,} {table.replace('_', ' ')}" for table, count in counts.items() if count)
        console().print(f"Removed: {listed}. What the user spent stays in the ledger.")
    if runs.under_way:
        console().print(f"{runs.under_way:,} runs have not ended yet: repeat this command once they have.")


def _parse_age(text: str) -> timedelta:
    match = _AGE.fullmatch(text)
    if match is None:
        raise BadInput(f"{text!r} is not an age; write a whole number of hours, days or weeks: 36h, 90d, 12w")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


@contextmanager
def _progress(total: int, *, hidden: bool) -> Iterator[Advance]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = console()
    with Progress(*columns, console=screen, disable=hidden or not screen.is_terminal, transient=True) as progress:
        bar = progress.add_task("removing", total=total)
        yield lambda count: progress.update(bar, advance=count)


def _remove_spans(database: Database, before: datetime, advance: Advance) -> RemovedRows:
    total = RemovedRows()
    while keys := database.read_now(old_spans(before)).keys:
        [removed] = database.write_now(remove_spans(keys))
        total += removed
        advance(removed.spans)
    return total


def _remove_payloads(database: Database, before: datetime, advance: Advance) -> RemovedRows:
    total, from_ns = RemovedRows(), 0
    while (page := database.read_now(old_payloads(before=before, from_ns=from_ns))).keys:
        [removed] = database.write_now(remove_payloads(page.keys))
        total, from_ns = total + removed, page.last_ns
        advance(removed.payloads)
    return total


def _erase_runs(database: Database, runs: UserRuns, now: datetime, advance: Advance) -> Counter[str]:
    counts: Counter[str] = Counter()
    for first in range(0, len(runs.ended), _ERASED_RUNS):
        run_ids = runs.ended[first : first + _ERASED_RUNS]
        by_table, approvals, feedback = database.write_now(
            erase_runs(run_ids, now), erase_approvals(run_ids), erase_feedback(run_ids)
        )
        counts.update({**by_table, "approvals_emptied": approvals, "feedback": feedback})
        advance(len(run_ids))
    return counts


def _erase_spans(
    database: Database, tenant: str, user: str, traces: Mapping[str, int], advance: Advance
) -> RemovedRows:
    total = RemovedRows()
    for trace_ids in _batches(traces):
        [removed] = database.write_now(remove_user_spans(tenant, user, trace_ids))
        total += removed
        advance(removed.spans)
    return total


def _batches(traces: Mapping[str, int]) -> Iterator[list[str]]:
    """Trace ids in batches of about MAX_REMOVED_SPANS spans each."""
    trace_ids: list[str] = []
    spans = 0
    for trace_id, count in traces.items():
        trace_ids.append(trace_id)
        spans += count
        if spans >= MAX_REMOVED_SPANS:
            yield trace_ids
            trace_ids, spans = [], 0
    if trace_ids:
        yield trace_ids


def _confirm(user: str, tenant: str, runs: UserRuns, traces: Mapping[str, int], as_json: bool) -> None:
    if as_json:
        raise BadInput("this erases data for good, and --json leaves no way to ask for confirmation: add --yes")
    console().print(
        f"User {excerpt(user, 60)} of tenant {excerpt(tenant, 60)} has {len(runs.ended):,} runs and "
        f"{sum(traces.values()):,} spans in {len(traces):,} traces."
    )
    typer.confirm("Erase them for good?", abort=True)


def _print_free_space(free: int | None) -> None:
    if free is not None and free >= _VACUUM_BYTES:
        space = f"{free / 1e6:,.0f} MB inside the file are free for new rows."
        console().print(f"{space} To return them to the disk, stop what uses the store and run SQLite's VACUUM.")

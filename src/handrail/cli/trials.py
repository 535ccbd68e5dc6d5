"""Trials as they run and as they ended, for the commands that make and show them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from handrail.evals import Case, Recorded, Responses, Trial
from handrail.kernel import BadInput, NanoUsd, show_usd

from .screen import console


@contextmanager
def watched(agent: str, cases: int, rounds: int = 1, *, hidden: bool) -> Iterator[Callable[[Case, Trial], None]]:
    """A progress bar over so many rounds of trials, moved on by what it yields and gone at the end.

    It grows by a round where more is tried than was known at first, as a gate does that cannot tell yet.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[right]} right, {task.fields[spent]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    right, spent, total = Counter[bool](), 0, cases * rounds
    with Progress(*columns, console=console(), disable=hidden, transient=True) as progress:
        bar = progress.add_task(agent, total=total, right=0, spent=show_usd(NanoUsd(0)))

        def advance(_case: Case, trial: Trial) -> None:
            nonlocal spent, total
            right[trial.verdict.passed] += 1
            spent += trial.cost
            total = max(total, cases * trial.trial)
            progress.update(bar, advance=1, total=total, right=right[True], spent=show_usd(NanoUsd(spent)))

        yield advance


def kept_in(cache: Path | None, recorded: Path | None) -> Responses | None:
    """The model's responses that `--cache` or `--recorded` names. Raises BadInput for both, and for a broken file."""
    if cache is not None and recorded is not None:
        raise BadInput("--cache and --recorded: one of them; the first asks the model for what is missing")
    if recorded is not None:
        return Recorded(recorded)
    return None if cache is None else Responses(cache)


def what_differed(expected: Mapping[str, Any], trial: Trial) -> str:
    """The fields that a trial got wrong: what the case expects and what was observed, else what their scorer noted."""
    wrong = [name for name, right in trial.verdict.fields.items() if not right]
    return ", ".join(f"{name}: {_difference(expected, trial, name)}" for name in wrong)


def show_value(value: Any) -> str:
    """A field's value as it stands in a set."""
    return json.dumps(value, ensure_ascii=False)


def _difference(expected: Mapping[str, Any], trial: Trial, name: str) -> str:
    if name in expected:
        return f"{show_value(expected[name])} expected, {_observed(trial, name)}"
    return trial.verdict.notes.get(name, "does not hold")


def _observed(trial: Trial, name: str) -> str:
    if name not in trial.observed:
        return f"nothing found ({trial.outcome})"
    return f"{show_value(to_jsonable_python(trial.observed[name], fallback=str))} found"

"""Trials as they run and as they ended, for the commands that make and show them."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic_core import to_jsonable_python
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from handrail.evals import Case, Score, Trial, score

from .screen import console


@contextmanager
def watched(agent: str, cases: int, *, hidden: bool) -> Iterator[Callable[[Case, Trial], None]]:
    """A progress bar, moved on by what it yields and gone at the end."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[right]} right"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    right = Counter[bool]()
    with Progress(*columns, console=console(), disable=hidden, transient=True) as progress:
        bar = progress.add_task(agent, total=cases, right=0)

        def advance(_case: Case, trial: Trial) -> None:
            right[trial.verdict.passed] += 1
            progress.update(bar, advance=1, right=right[True])

        yield advance


def score_of(trials: Sequence[Trial]) -> Score | None:
    """The score of the trials there are; None where there are none."""
    return score([float(trial.verdict.passed) for trial in trials]) if trials else None


def what_differed(expected: Mapping[str, Any], trial: Trial) -> str:
    """The fields that a trial got wrong: what the case expects, and what was observed."""
    return ", ".join(
        f"{name}: {show_value(expected.get(name))} expected, {_observed(trial, name)}"
        for name, right in trial.verdict.fields.items()
        if not right
    )


def show_value(value: Any) -> str:
    """A field's value as it stands in a set."""
    return json.dumps(value, ensure_ascii=False)


def _observed(trial: Trial, name: str) -> str:
    if name not in trial.observed:
        return f"nothing found ({trial.outcome})"
    return f"{show_value(to_jsonable_python(trial.observed[name], fallback=str))} found"

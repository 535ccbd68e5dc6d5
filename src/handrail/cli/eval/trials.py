"""Trials as they run and as they ended, for the commands that make and show them."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from handrail.cli.output import console
from handrail.evals.eval_set.model import Case
from handrail.evals.runner.response_cache import Recorded, Responses
from handrail.evals.store.eval_runs import Trial
from handrail.kernel.errors import BadInput
from handrail.kernel.money import NanoUsd, show_usd


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

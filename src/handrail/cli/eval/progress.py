"""The progress bar of an eval run."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from handrail.cli.output import console
from handrail.evals.eval_set.model import Case
from handrail.evals.store.eval_runs import Trial
from handrail.kernel.money import NanoUsd, format_usd


@contextmanager
def trial_progress(agent: str, cases: int, trials: int = 1, *, hidden: bool) -> Iterator[Callable[[Case, Trial], None]]:
    """Shows a progress bar while the block runs. Yields a function that advances it by one trial.

    The bar grows if more than `trials` of each case are run, as a gate does that cannot decide yet.

    Args:
        agent: The title of the bar.
        cases: The number of cases.
        trials: The expected number of trials of each case.
        hidden: Show nothing.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[passed]} passed, {task.fields[spent]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    results, spent, total = Counter[bool](), 0, cases * trials
    with Progress(*columns, console=console(), disable=hidden, transient=True) as progress:
        bar = progress.add_task(agent, total=total, passed=0, spent=format_usd(NanoUsd(0)))

        def advance(_case: Case, trial: Trial) -> None:
            nonlocal spent, total
            results[trial.score.passed] += 1
            spent += trial.cost
            total = max(total, cases * trial.trial)
            progress.update(bar, advance=1, total=total, passed=results[True], spent=format_usd(NanoUsd(spent)))

        yield advance

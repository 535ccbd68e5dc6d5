"""`handrail eval baseline`: sets what the gate compares with."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from handrail.cli.options import AsJson, By, resolve_by
from handrail.cli.output import console, excerpt, print_json
from handrail.cli.runtime import open_runtime
from handrail.evals.gate.baseline import baseline_from_eval_run, create_baseline
from handrail.evals.gate.gate import plan_for
from handrail.evals.gate.report import short_hash
from handrail.evals.gate.trial_plan import BASELINE_TRIALS, TrialPlan
from handrail.evals.runner.eval_run import load_frozen_set, overall_score
from handrail.evals.store.baseline_file import BaselineFile, write_baseline_file
from handrail.evals.store.baselines import Baseline
from handrail.evals.store.eval_runs import Trial, load_eval_run
from handrail.kernel.errors import BadInput
from handrail.registry import find_eval_spec

from .options import AgentName, CacheFile, Concurrency, RecordedFile, open_responses
from .progress import trial_progress

_FromEvalRun = Annotated[
    str | None, typer.Option("--from", metavar="EVAL_RUN", help="Use a stored eval run instead of a new one.")
]
_BaselineTrials = Annotated[
    int | None,
    typer.Option(min=1, max=1_000, help="Trials of each case; by default 8, or more if the agent's answers vary."),
]
_WriteFile = Annotated[
    Path | None,
    typer.Option(
        "--write", metavar="FILE", help="Write the baseline to this file too, to commit it with the eval set."
    ),
]


def baseline(
    agent: AgentName,
    from_: _FromEvalRun = None,
    trials: _BaselineTrials = None,
    concurrency: Concurrency = 1,
    cache: CacheFile = None,
    recorded: RecordedFile = None,
    write: _WriteFile = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Set what the gate compares with: the agent as it is in production.

    Examples: `handrail eval baseline support-triage`, `handrail eval baseline support-triage --write baseline.jsonl`
    """
    if write is not None and not write.parent.is_dir():
        raise BadInput(f"--write {write}: there is no folder {write.parent}; create it, or choose another file")
    with open_runtime() as runtime:
        spec = find_eval_spec(agent, runtime.settings)
        eval_set = load_frozen_set(spec)
        if from_ is not None:
            created = asyncio.run(baseline_from_eval_run(runtime, spec, from_, by=resolve_by(by)))
        else:
            with trial_progress(agent, len(eval_set.cases), trials or BASELINE_TRIALS, hidden=as_json) as advance:
                creation = create_baseline(
                    runtime,
                    spec,
                    by=resolve_by(by),
                    trials=trials,
                    concurrency=concurrency,
                    responses=open_responses(cache, recorded),
                    on_trial=advance,
                )
                created = asyncio.run(creation)
        view, stored_trials = runtime.database.read_now(load_eval_run(created.eval_run_id))
        if write is not None:
            file = BaselineFile(path=write, baseline=created, view=view, trials=tuple(stored_trials))
            write_baseline_file(file, [case.id for case in eval_set.cases])
        plan = asyncio.run(plan_for(stored_trials))
    if as_json:
        print_json({"baseline": created, "score": overall_score(stored_trials), "plan": plan, "file": write})
    else:
        _show(created, stored_trials, plan, write)


def _show(created: Baseline, trials: Sequence[Trial], plan: TrialPlan | None, file: Path | None) -> None:
    screen = console()
    count = f"{created.trials} trial{'' if created.trials == 1 else 's'} of each case"
    hashes = f"agent {short_hash(created.agent_hash)}, set {short_hash(created.set_hash)}"
    screen.print(f"[bold]Baseline {overall_score(trials)}[/], {count}, {hashes}")
    unknown = "With one trial of each case, how much the agent's answers vary is unknown: use --trials 8."
    screen.print(f"{plan}." if plan else unknown, soft_wrap=True)
    command = f"handrail eval gate {created.agent}"
    if file is not None:
        screen.print(
            f"Written to {excerpt(str(file), 300)}: review it and commit it with the eval set.", soft_wrap=True
        )
        command += f" --baseline {excerpt(str(file), 300)}"
    screen.print(f"[dim]`{command}` compares the agent with it after a change.[/]", soft_wrap=True)

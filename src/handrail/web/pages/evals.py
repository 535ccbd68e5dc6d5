"""Eval runs and what the gate said, to read."""

from fastapi import APIRouter
from starlette.responses import Response

from handrail.evals import score
from handrail.web.addresses import Id

from .look import PAGE, Looking

router = APIRouter(include_in_schema=False)


@router.get("/evals")
async def list_(look: Looking) -> Response:
    """The newest eval runs, and the gate's newest verdicts."""
    found = await look.reads.eval_runs(PAGE)
    gates = await look.reads.gates(sorted({view.agent for view, _ in found}), 10)
    rows = [
        (view, len(trials), score([float(trial.verdict.passed) for trial in trials]) if trials else None)
        for view, trials in found
    ]
    return look.page("evals.html", rows=rows, gates=sorted(gates, key=lambda each: each[0].at, reverse=True))


@router.get("/evals/{eval_run_id}")
async def show(look: Looking, eval_run_id: Id) -> Response:
    """One eval run, the wrong cases first."""
    view, trials = await look.reads.eval_run(eval_run_id)
    ordered = sorted(trials, key=lambda trial: (trial.verdict.passed, trial.case_id, trial.trial))
    passed = [float(trial.verdict.passed) for trial in trials]
    return look.page("eval.html", view=view, trials=ordered, score=score(passed) if trials else None)

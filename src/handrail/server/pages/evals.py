"""Eval runs over time, one of them, two side by side, and one case through time."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query
from markupsafe import Markup
from starlette.responses import Response

from handrail.evals.compare.case_diff import CHANGES, Change, chosen
from handrail.evals.eval_set.model import Case, load_set
from handrail.evals.runner.eval_run import score_of
from handrail.evals.runner.history import CaseAt, EvalRunSummary
from handrail.evals.store.eval_runs import agent_hash_of
from handrail.kernel.errors import HandrailError, NotFound
from handrail.server.charts import scores
from handrail.server.params import Before, Id, Word
from handrail.server.view_models.evals import by_field, by_path, case_points, case_rows, colours, name_of, score_points

from .context import PAGE, Look, Looking

router = APIRouter(include_in_schema=False)

GATES = 10
IN_FULL = 10
"""Cases of a diff on a page, each with its outputs and trajectories."""
HISTORY = 200

Each = TypeVar("Each")

Show = Annotated[Change | None, Query()]
Older = Annotated[str, Query(alias="before", pattern="^[0-9a-z_]{1,64}$")]
From = Annotated[int, Query(alias="from", ge=0, le=100_000)]


@router.get("/evals")
async def list_(look: Looking, agent: Word = "", before: Before = None) -> Response:
    """An agent's scores over time, its eval runs and what its gate said; of the newest agent where none is named."""
    agents = await look.evals.agents()
    shown = agent or next(iter(agents), "")
    runs = await look.evals.over_time(shown, PAGE + 1, before)
    marks = colours(run.agent_hash for run in runs)
    return look.page(
        "evals.html",
        agents=agents,
        agent=shown,
        rows=[(run, name_of(run.agent_hash), older) for run, older in _pairs(runs)][:PAGE],
        marks=marks,
        chart=await _score_chart(look, runs, marks),
        gates=[] if before else await look.evals.gates(shown, GATES),
        before=before,
        next=runs[PAGE - 1].eval_run.eval_run_id if len(runs) > PAGE else None,
    )


@router.get("/evals/case")
async def show_case(look: Looking, agent: Word, id_: Annotated[Word, Query(alias="id")]) -> Response:
    """One case in every eval run of the agent, and what it asks and expects where its set can be read."""
    found = await look.evals.case(agent, id_, HISTORY)
    if not found:
        raise NotFound(f"no eval run of {agent} has a case {id_}")
    rows = [(each, name_of(each.agent_hash), _turned(each, older)) for each, older in _pairs(found)]
    marks = colours(each.agent_hash for each in found)
    return look.page(
        "eval_case.html",
        agent=agent,
        case_id=id_,
        case=(await _cases_of(look, agent)).get(id_),
        rows=rows,
        marks=marks,
        kept=await look.evals.kept(trial for each in found for trial in each.trials),
        chart=await _drawn(
            look, ("case", agent, id_, len(found), found[0].eval_run.eval_run_id), case_points(found), marks
        ),
    )


@router.get("/evals/{eval_run_id}")
async def show(look: Looking, eval_run_id: Id, wrong: bool = False) -> Response:
    """One eval run, the wrong cases first."""
    view, trials = await look.evals.run(eval_run_id)
    rows = case_rows(trials)
    baseline, previous = await look.evals.beside(view)
    return look.page(
        "eval.html",
        view=view,
        trials=trials,
        score=score_of(trials),
        agent_hash=agent_hash_of(trials),
        models=sorted({each.model for each in trials if each.model}),
        errors=sum(each.error is not None for each in trials),
        rows=[row for row in rows if row.value != 1] if wrong else rows,
        wrong=wrong,
        count=sum(row.value != 1 for row in rows),
        cases=len(rows),
        paths=by_path(trials),
        fields=by_field(trials),
        baseline=baseline,
        previous=previous,
        kept=await look.evals.kept(trials),
    )


@router.get("/evals/{eval_run_id}/diff")
async def show_diff(look: Looking, eval_run_id: Id, before: Older, show: Show = None, start: From = 0) -> Response:
    """Two eval runs side by side, case by case, the worst first; `before` is an id, or `baseline`."""
    compared = await look.evals.compare(before, eval_run_id)
    cases = chosen(compared.diff, [show] if show else [])
    shown = cases[start : start + IN_FULL]
    return look.page(
        "eval_diff.html",
        compared=compared,
        changed=len(chosen(compared.diff, [])),
        counts={change: len(chosen(compared.diff, [change])) for change in CHANGES},
        show=show,
        cases=len(cases),
        start=start,
        close=await look.evals.closer(shown),
        kept=await look.evals.kept(trial for case in shown for trial in case.shown),
        next=start + IN_FULL if len(cases) > start + IN_FULL else None,
        names=[name_of(each) for each in compared.agents],
        asked=await _cases_of(look, compared.after.agent),
        others=await look.evals.over_time(compared.after.agent, PAGE),
    )


async def _score_chart(look: Look, runs: Sequence[EvalRunSummary], marks: Mapping[str, str]) -> Markup | None:
    key = tuple((run.eval_run.eval_run_id, run.trials) for run in runs)
    return await _drawn(look, ("evals", key), score_points(runs), marks)


async def _drawn(
    look: Look, key: tuple[Any, ...], points: Sequence[Mapping[str, Any]], marks: Mapping[str, str]
) -> Markup | None:
    """The chart; None where there is no line to draw yet."""
    if len(points) < 2:
        return None
    return await look.site.charts.drawn(key, partial(scores, points, marks))


def _pairs(found: Sequence[Each]) -> list[tuple[Each, Each | None]]:
    """Each, of the newest first, with the one before it in time."""
    return list(zip(found, [*found[1:], None], strict=False))


def _turned(each: CaseAt, older: CaseAt | None) -> str:
    """Whether the case does better or worse than in the eval run before."""
    if older is None or each.value is None or older.value is None or each.value == older.value:
        return ""
    return "better" if each.value > older.value else "worse"


async def _cases_of(look: Look, agent: str) -> Mapping[str, Case]:
    """The cases by id as the agent's set has them now; none where the agent is not of this server, or its set cannot be
    read."""

    def load() -> Mapping[str, Case]:
        try:
            spec = look.site.find_agent(agent).trials
            cases = load_set(spec.cases).cases if spec else ()
        except HandrailError:
            return {}
        return {each.id: each for each in cases}

    return await asyncio.to_thread(load)

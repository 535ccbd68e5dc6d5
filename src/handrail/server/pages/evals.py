"""The evals pages: eval runs over time, one eval run, two compared, and one case over time. For operators only."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query
from markupsafe import Markup
from starlette.responses import Response

from handrail.evals.compare.case_diff import CHANGE_KINDS, ChangeKind, filter_cases
from handrail.evals.eval_set.model import Case, load_eval_set
from handrail.evals.runner.eval_run import overall_score
from handrail.evals.store.eval_runs import most_common_agent_hash
from handrail.kernel.errors import HandrailError, NotFound
from handrail.server.charts import score_chart
from handrail.server.params import BeforeQuery, IdPath, TextQuery
from handrail.server.view_models.evals import (
    accuracy_by_field,
    case_points,
    case_rows,
    change_of,
    fingerprint_colours,
    score_points,
    scores_by_path,
    short_fingerprint,
    with_previous,
)

from .context import PAGE_SIZE, Page, PageContext

router = APIRouter(include_in_schema=False)

GATES = 10
CASES_PER_PAGE = 10
"""Cases of a diff on a page, each with its outputs and trajectories."""
HISTORY = 200

ChangeQuery = Annotated[ChangeKind | None, Query()]
BaselineQuery = Annotated[str, Query(alias="before", pattern="^[0-9a-z_]{1,64}$")]
OffsetQuery = Annotated[int, Query(alias="from", ge=0, le=100_000)]


@router.get("/evals")
async def list_eval_runs(page: Page, agent: TextQuery = "", before: BeforeQuery = None) -> Response:
    """An agent's scores over time, its eval runs and gate verdicts; by default of the most recent agent."""
    agents = await page.evals.agents()
    selected = agent or next(iter(agents), "")
    runs = await page.evals.eval_runs(selected, PAGE_SIZE + 1, before)
    colours = fingerprint_colours(run.agent_hash for run in runs)
    chart_key = ("evals", tuple((run.eval_run.eval_run_id, run.trials) for run in runs))
    return page.render(
        "evals.html",
        agents=agents,
        agent=selected,
        rows=[(run, short_fingerprint(run.agent_hash), previous) for run, previous in with_previous(runs)][:PAGE_SIZE],
        colours=colours,
        chart=await _render_chart(page, chart_key, score_points(runs), colours),
        gates=[] if before else await page.evals.gates(selected, GATES),
        before=before,
        next=runs[PAGE_SIZE - 1].eval_run.eval_run_id if len(runs) > PAGE_SIZE else None,
    )


@router.get("/evals/case")
async def show_case(page: Page, agent: TextQuery, id_: Annotated[TextQuery, Query(alias="id")]) -> Response:
    """One case in every eval run of the agent, with its input and expected output if its eval set can be read."""
    results = await page.evals.case_history(agent, id_, HISTORY)
    if not results:
        raise NotFound(f"no eval run of {agent} has a case {id_}")
    colours = fingerprint_colours(result.agent_hash for result in results)
    chart_key = ("case", agent, id_, len(results), results[0].eval_run.eval_run_id)
    return page.render(
        "eval_case.html",
        agent=agent,
        case_id=id_,
        case=(await _cases(page, agent)).get(id_),
        rows=[
            (result, short_fingerprint(result.agent_hash), change_of(result, previous))
            for result, previous in with_previous(results)
        ],
        colours=colours,
        stored=await page.evals.stored_run_ids(trial for result in results for trial in result.trials),
        chart=await _render_chart(page, chart_key, case_points(results), colours),
    )


@router.get("/evals/{eval_run_id}")
async def show_eval_run(page: Page, eval_run_id: IdPath, failing: bool = False) -> Response:
    """One eval run, the worst cases first."""
    view, trials = await page.evals.eval_run(eval_run_id)
    rows = case_rows(trials)
    failing_rows = [row for row in rows if row.value != 1]
    baseline, previous = await page.evals.comparison_targets(view)
    return page.render(
        "eval.html",
        view=view,
        trials=trials,
        score=overall_score(trials),
        agent_hash=most_common_agent_hash(trials),
        models=sorted({trial.model for trial in trials if trial.model}),
        errors=sum(trial.error is not None for trial in trials),
        rows=failing_rows if failing else rows,
        failing=failing,
        failing_count=len(failing_rows),
        cases=len(rows),
        paths=scores_by_path(trials),
        fields=accuracy_by_field(trials),
        baseline=baseline,
        previous=previous,
        stored=await page.evals.stored_run_ids(trials),
    )


@router.get("/evals/{eval_run_id}/diff")
async def show_diff(
    page: Page, eval_run_id: IdPath, before: BaselineQuery, show: ChangeQuery = None, start: OffsetQuery = 0
) -> Response:
    """Two eval runs compared case by case, the worst first; `before` is the other's id, or `baseline`."""
    comparison = await page.evals.compare(before, eval_run_id)
    cases = filter_cases(comparison.diff, [show] if show else [])
    on_page = cases[start : start + CASES_PER_PAGE]
    return page.render(
        "eval_diff.html",
        comparison=comparison,
        changed=len(filter_cases(comparison.diff, [])),
        counts={kind: len(filter_cases(comparison.diff, [kind])) for kind in CHANGE_KINDS},
        show=show,
        start=start,
        details=await page.evals.case_details(on_page),
        stored=await page.evals.stored_run_ids(trial for case in on_page for trial in case.example_trials),
        next=start + CASES_PER_PAGE if len(cases) > start + CASES_PER_PAGE else None,
        fingerprints=[short_fingerprint(agent_hash) for agent_hash in comparison.agents],
        cases_by_id=await _cases(page, comparison.after.agent),
        others=await page.evals.eval_runs(comparison.after.agent, PAGE_SIZE),
    )


async def _render_chart(
    page: PageContext, key: tuple[Any, ...], points: Sequence[Mapping[str, Any]], colours: Mapping[str, str]
) -> Markup | None:
    """The chart, or None if there are not two points to connect."""
    if len(points) < 2:
        return None
    return await page.state.charts.render(key, partial(score_chart, points, colours))


async def _cases(page: PageContext, agent: str) -> Mapping[str, Case]:
    """The agent's cases by id as its eval set has them now; none if the server has no readable eval set for it."""

    def load() -> Mapping[str, Case]:
        try:
            cases = load_eval_set(page.state.find_eval_spec(agent).cases).cases
        except HandrailError:
            return {}
        return {case.id: case for case in cases}

    return await asyncio.to_thread(load)

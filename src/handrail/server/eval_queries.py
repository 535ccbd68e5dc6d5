"""The queries of the evals pages. Eval runs are about agents, not about one tenant, so they are for operators only."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection

from handrail.evals.compare.case_diff import CaseDiff
from handrail.evals.compare.comparison import CaseDetail, EvalRunComparison, compare_eval_runs, load_case_detail
from handrail.evals.gate.verdict_store import GateRecord, list_gates
from handrail.evals.spec import EVALS_TENANT
from handrail.evals.store.baselines import Baseline, list_baselines, newest_baseline
from handrail.evals.store.eval_runs import EvalRunView, Trial, list_eval_runs, load_eval_run
from handrail.evals.store.history import (
    CaseResult,
    EvalRunSummary,
    case_history,
    list_eval_agents,
    list_eval_run_summaries,
)
from handrail.kernel.db.operation import operation
from handrail.runs.runtime import Runtime
from handrail.runs.store.queries import existing_runs


class EvalQueries:
    """The eval runs in the store."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def agents(self) -> list[str]:
        """The agents that have eval runs, the most recent first."""
        return await self._runtime.database.read(list_eval_agents())

    async def eval_runs(self, agent: str, limit: int, before: str | None = None) -> list[EvalRunSummary]:
        """An agent's eval runs, the newest first; `before` is the id of the previous page's last."""
        return await self._runtime.database.read(list_eval_run_summaries(agent, limit, before))

    async def gates(self, agent: str, limit: int) -> list[tuple[GateRecord, Baseline | None]]:
        """An agent's gate verdicts, the newest first, each with the baseline it was compared with."""
        return await self._runtime.database.read(_list_gates_with_baselines(agent, limit))

    async def eval_run(self, eval_run_id: str) -> tuple[EvalRunView, Sequence[Trial]]:
        """One eval run with its trials. Raises NotFound."""
        return await self._runtime.database.read(load_eval_run(eval_run_id))

    async def stored_run_ids(self, trials: Iterable[Trial]) -> set[str]:
        """The ids of the trials' runs that are in this store; those of an imported baseline are not."""
        tenant, ids = EVALS_TENANT, [trial.run_id for trial in trials if trial.run_id]
        return await self._runtime.database.read(existing_runs(ids, tenant))

    async def comparison_targets(self, view: EvalRunView) -> tuple[str | None, str | None]:
        """The ids of the eval runs to compare with: the baseline's and the previous one; None if there is none."""
        return await self._runtime.database.read(_find_comparison_targets(view))

    async def compare(self, before: str, after: str) -> EvalRunComparison:
        """Two eval runs by their ids. Raises NotFound and BadInput."""
        return await compare_eval_runs(self._runtime, before, after)

    async def case_details(self, cases: Sequence[CaseDiff]) -> list[CaseDetail]:
        """The outputs and trajectories of these cases on both sides."""
        return [await load_case_detail(self._runtime, case) for case in cases]

    async def case_history(self, agent: str, case_id: str, limit: int) -> list[CaseResult]:
        """One case in the agent's newest eval runs, the newest first."""
        return await self._runtime.database.read(case_history(agent, case_id, limit))


@operation
def _list_gates_with_baselines(conn: Connection, agent: str, limit: int) -> list[tuple[GateRecord, Baseline | None]]:
    baselines = {baseline.baseline_id: baseline for baseline in list_baselines(agent, limit)(conn)}
    return [(gate, baselines.get(gate.baseline_id)) for gate in list_gates(agent, limit)(conn)]


@operation
def _find_comparison_targets(conn: Connection, view: EvalRunView) -> tuple[str | None, str | None]:
    baseline = newest_baseline(view.agent, view.set_hash)(conn)
    previous = list_eval_runs(view.agent, 1, view.eval_run_id)(conn)
    baseline_id = baseline.eval_run_id if baseline else None
    return None if baseline_id == view.eval_run_id else baseline_id, previous[0].eval_run_id if previous else None

"""What the pages on evals read. Evals are of agents and not of a tenant: only an operator may ask."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection

from handrail.evals.compare.case_diff import CaseDiff
from handrail.evals.compare.comparison import Close, Compared, compare_eval_runs, look_closer
from handrail.evals.gate.verdict_store import GateView, list_gates
from handrail.evals.runner.history import (
    CaseAt,
    EvalRunSummary,
    case_through_time,
    eval_runs_over_time,
    list_eval_agents,
)
from handrail.evals.store.baselines import Baseline, list_baselines, newest_baseline
from handrail.evals.store.eval_runs import EvalRunView, Trial, list_eval_runs, load_eval_run
from handrail.evals.tenant import TENANT
from handrail.runs.runtime import Runtime
from handrail.runs.store.runs import known_runs


class EvalReads:
    """The eval runs in the store."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def agents(self) -> list[str]:
        """The agents that have eval runs, the one with the newest first."""
        return await self._runtime.database.read(list_eval_agents)

    async def over_time(self, agent: str, limit: int, before: str | None = None) -> list[EvalRunSummary]:
        """The agent's eval runs, the newest first; `before` is the last of the page before."""
        return await self._runtime.database.read(lambda conn: eval_runs_over_time(conn, agent, limit, before))

    async def gates(self, agent: str, limit: int) -> list[tuple[GateView, Baseline | None]]:
        """What the gate said of the agent, the newest first, with the baseline it compared with."""

        def query(conn: Connection) -> list[tuple[GateView, Baseline | None]]:
            known = {each.baseline_id: each for each in list_baselines(conn, agent, limit)}
            return [(gate, known.get(gate.baseline_id)) for gate in list_gates(conn, agent, limit)]

        return await self._runtime.database.read(query)

    async def run(self, eval_run_id: str) -> tuple[EvalRunView, Sequence[Trial]]:
        """Raises NotFound."""
        return await self._runtime.database.read(lambda conn: load_eval_run(conn, eval_run_id))

    async def kept(self, trials: Iterable[Trial]) -> set[str]:
        """The ids of the trials' runs that are in this store: those of a baseline from a file are elsewhere."""
        tenant, ids = TENANT, [each.run_id for each in trials if each.run_id]
        return await self._runtime.database.read(lambda conn: known_runs(conn, ids, tenant))

    async def beside(self, view: EvalRunView) -> tuple[str | None, str | None]:
        """What the eval run is best compared with: its baseline's eval run, and the one before it; None for neither."""

        def query(conn: Connection) -> tuple[str | None, str | None]:
            baseline = newest_baseline(conn, view.agent, view.set_hash)
            previous = list_eval_runs(conn, view.agent, 1, view.eval_run_id)
            found = baseline.eval_run_id if baseline else None
            return (
                None if found == view.eval_run_id else found,
                previous[0].eval_run_id if previous else None,
            )

        return await self._runtime.database.read(query)

    async def compare(self, before: str, after: str) -> Compared:
        """Two eval runs by their ids. Raises NotFound and BadInput."""
        return await compare_eval_runs(self._runtime, before, after)

    async def closer(self, cases: Sequence[CaseDiff]) -> list[Close]:
        """What those cases gave and did on both sides."""
        return [await look_closer(self._runtime, case) for case in cases]

    async def case(self, agent: str, case_id: str, limit: int) -> list[CaseAt]:
        """One case in the agent's newest eval runs, the newest first."""
        return await self._runtime.database.read(lambda conn: case_through_time(conn, agent, case_id, limit))

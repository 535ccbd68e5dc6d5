"""The queries of the jobs page. Jobs are of every tenant, and their errors may quote any: only operators see them."""

from collections.abc import Mapping

from sqlalchemy import Connection

from handrail.kernel.db.jobs import JobState, JobView, list_jobs, requeue
from handrail.kernel.db.operation import operation
from handrail.runs.runtime import Runtime

UNFINISHED: tuple[JobState, ...] = ("dead", "running", "waiting")
"""The states of jobs that are not done, those that need a person first."""


class JobQueries:
    """The jobs in the store."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def jobs(self, state: JobState, limit: int, before: str | None) -> list[JobView]:
        """The jobs in one state, the newest first; `before` is the key of the previous page's last. Raises NotFound."""
        now = self._runtime.clock.now()
        return await self._runtime.database.read(list_jobs(now, state=state, limit=limit, before=before))

    async def unfinished(self, limit: int) -> Mapping[JobState, list[JobView]]:
        """At most `limit` jobs in each of the states of `UNFINISHED`, the newest first."""
        now = self._runtime.clock.now()

        @operation
        def load(conn: Connection) -> dict[JobState, list[JobView]]:
            return {state: list_jobs(now, state=state, limit=limit, before=None)(conn) for state in UNFINISHED}

        return await self._runtime.database.read(load())

    async def requeue(self, key: str) -> JobView:
        """Lets workers try a dead job again. Raises NotFound, and BadInput for a job that is not dead."""
        requeued: list[JobView] = await self._runtime.database.write(requeue(key, self._runtime.clock.now()))
        return requeued[0]

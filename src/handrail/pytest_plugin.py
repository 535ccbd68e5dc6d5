"""An eval set as tests.

    # conftest.py
    pytest_plugins = ["handrail.pytest_plugin"]

    # test_triage.py
    @pytest.mark.handrail_eval("support-triage")
    def test_triage(trial):
        assert trial.verdict.passed, trial.observed

Each case becomes a test, which tries it once; the trials of a session are one eval run and are kept like any other. A
trial that the infrastructure failed is skipped. The agent is named as in handrail.toml, or given as an object.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from handrail.config.settings import load_settings
from handrail.evals.eval_set.model import Case
from handrail.evals.runner.eval_run import Running, evaluating, frozen_set
from handrail.evals.store.eval_runs import Trial
from handrail.registry import find_agent
from handrail.runs.agent import GovernedAgent
from handrail.runs.runtime import Runtime

_MARK = "handrail_eval"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{_MARK}(agent): tries every case of the agent's eval set, one as `trial`.")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker(_MARK)
    if mark is not None and "trial" in metafunc.fixturenames:
        cases = frozen_set(_agent(mark))[0].cases
        metafunc.parametrize("trial", cases, ids=[case.id for case in cases], indirect=True)


@pytest.fixture(scope="session")
def handrail_evals() -> Iterator["_Session"]:
    """The eval runs of this session, one per agent."""
    session = _Session()
    yield session
    session.close()


@pytest.fixture
def trial(request: pytest.FixtureRequest, handrail_evals: "_Session") -> Trial:
    """What came of trying the test's case once."""
    mark = request.node.get_closest_marker(_MARK)
    case: Case = request.param
    found = handrail_evals.trial(_agent(mark), case)
    if found.error is not None:
        pytest.skip(f"the model could not be asked: {found.error}")
    return found


class _Session:
    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._open = AsyncExitStack()
        self._running: dict[str, Running] = {}
        self._runtime: Runtime | None = None

    def trial(self, agent: GovernedAgent[Any, Any], case: Case) -> Trial:
        return self._runner.run(self._tried(agent, case))

    async def _tried(self, agent: GovernedAgent[Any, Any], case: Case) -> Trial:
        if self._runtime is None:
            self._runtime = Runtime(load_settings())
        if agent.name not in self._running:
            self._running[agent.name] = await self._open.enter_async_context(evaluating(self._runtime, agent))
        return await self._running[agent.name].one(case, 1)

    def close(self) -> None:
        self._runner.run(self._open.aclose())
        self._runner.close()
        if self._runtime is not None:
            self._runtime.close()


def _agent(mark: pytest.Mark) -> GovernedAgent[Any, Any]:
    [given] = mark.args
    return given if isinstance(given, GovernedAgent) else find_agent(given, load_settings())

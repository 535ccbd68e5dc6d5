"""Runs an eval set as tests, one for each case.

Example::

    # conftest.py
    pytest_plugins = ["handrail.pytest_plugin"]

    # test_triage.py
    @pytest.mark.handrail_eval("support-triage")
    def test_triage(trial):
        assert trial.score.passed, trial.observed

The mark takes an agent's name, or an `EvalSpec`. Each case gets one trial, and the fixture `trial` is its result, a
`handrail.evals.Trial`. The trials of a session form one eval run per spec, which is stored like any other. If the
infrastructure fails, the test is skipped.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from handrail.config.sources import load_settings
from handrail.evals.eval_set.model import Case
from handrail.evals.runner.eval_run import EvalRun, load_frozen_set, open_eval_run
from handrail.evals.spec import EvalSpec
from handrail.evals.store.eval_runs import Trial
from handrail.registry import find_eval_spec
from handrail.runs.runtime import Runtime

_MARK = "handrail_eval"


def pytest_configure(config: pytest.Config) -> None:
    """Registers the mark."""
    config.addinivalue_line(
        "markers", f"{_MARK}(spec): runs the test on every case of an EvalSpec, given as such or by its agent's name."
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrizes a marked test with the cases of its eval set."""
    mark = metafunc.definition.get_closest_marker(_MARK)
    if mark is not None and "trial" in metafunc.fixturenames:
        cases = load_frozen_set(_marked_spec(mark)).cases
        metafunc.parametrize("trial", cases, ids=[case.id for case in cases], indirect=True)


@pytest.fixture(scope="session")
def _handrail_evals() -> Iterator["_EvalSession"]:
    """The eval runs of this session, one per spec."""
    session = _EvalSession()
    yield session
    session.close()


@pytest.fixture
def trial(request: pytest.FixtureRequest, _handrail_evals: "_EvalSession") -> Trial:
    """The trial of the test's case."""
    mark = request.node.get_closest_marker(_MARK)
    case: Case = request.param
    trial = _handrail_evals.run_trial(_marked_spec(mark), case)
    if trial.error is not None:
        pytest.skip(f"the model was not available: {trial.error}")
    return trial


class _EvalSession:
    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._eval_runs: dict[str, EvalRun] = {}
        self._runtime: Runtime | None = None

    def run_trial(self, spec: EvalSpec[Any, Any], case: Case) -> Trial:
        return self._runner.run(self._run_trial(spec, case))

    async def _run_trial(self, spec: EvalSpec[Any, Any], case: Case) -> Trial:
        if self._runtime is None:
            self._runtime = Runtime(load_settings())
        if spec.name not in self._eval_runs:
            eval_run = await self._stack.enter_async_context(open_eval_run(self._runtime, spec))
            self._eval_runs[spec.name] = eval_run
        return await self._eval_runs[spec.name].run_trial(case, 1)

    def close(self) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()
        if self._runtime is not None:
            self._runtime.close()


def _marked_spec(mark: pytest.Mark) -> EvalSpec[Any, Any]:
    [spec_or_name] = mark.args
    return spec_or_name if isinstance(spec_or_name, EvalSpec) else find_eval_spec(spec_or_name, load_settings())

"""An eval set as pytest tests, in a separate project."""

from pathlib import Path

import pytest

from handrail.evals.store.eval_runs import list_eval_runs, load_eval_run
from handrail.kernel.db.database import Database

CONFTEST = 'pytest_plugins = ["handrail.pytest_plugin"]\n'
SHOP = """
from pathlib import Path
from pydantic_ai import Agent
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel
from handrail import Answered, govern
from handrail.evals import EvalSpec

def reply(messages, info):
    text = messages[-1].parts[-1].content
    return ModelResponse([TextPart(text)])

def observe(outcome):
    return {"reply": outcome.output} if isinstance(outcome, Answered) else {}

echo = govern(Agent(FunctionModel(reply)), name="echo")
evals = EvalSpec(agent=echo, cases=Path("cases.yaml"), observe=observe)
"""
CASES = """
name: echo
description: The input, repeated.
cases:
  - {id: hello, input: hello, expect: {reply: hello}, source: this test, date: 2026-01-01}
  - {id: silence, input: hush, expect: {reply: nothing}, source: this test, date: 2026-01-01}
"""
TESTS = """
import pytest

@pytest.mark.handrail_eval("echo")
def test_echo(trial):
    assert trial.score.passed, trial.observed
"""


def test_a_set_as_tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each case is a test with its name, a failing case fails, and the session is one complete eval run."""
    import datetime as dt

    from handrail.evals.eval_set.lock import freeze

    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(shop=SHOP, test_echo=TESTS)
    (pytester.path / "cases.yaml").write_text(CASES)
    (pytester.path / "handrail.toml").write_text('[agents]\necho = "shop:echo"\n')
    freeze(pytester.path / "cases.yaml", "first", dt.date(2026, 1, 1))
    monkeypatch.chdir(pytester.path)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*test_echo[[]hello[]] PASSED*", "*test_echo[[]silence[]] FAILED*"])
    database = Database.open("handrail.db", Path(pytester.path))
    [view] = database.read_now(list_eval_runs("echo", 9))
    _, trials = database.read_now(load_eval_run(view.eval_run_id))
    database.close()
    assert view.ended_at is not None
    assert [trial.case_id for trial in trials] == ["hello", "silence"]

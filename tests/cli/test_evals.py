"""`handrail eval baseline`, `gate` and `add`: exit codes, JSON and messages."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from handrail.cli.options import parse_fields
from handrail.evals.eval_set.lock import freeze
from handrail.evals.eval_set.model import load_eval_set
from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.review.feedback import Feedback, add_feedback, load_feedback
from tests.cli.terminal import CommandResult, Folder

TOML = '[agents]\nsorter = "sorting:sorter"\nbuggy = "sorting:buggy"\n'
AGENTS = '''\
"""An agent that sorts messages as its prompt says."""

from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

from handrail import Answered, govern
from handrail.evals import EvalSpec

HERE = Path(__file__).parent
PROMPT = (HERE / "prompt.txt").read_text()


def sort(messages, info):
    message = messages[-1].parts[-1].content
    rules = dict(line.split(": ") for line in messages[-1].instructions.splitlines())
    return ModelResponse([TextPart(next((category for word, category in rules.items() if word in message), "other"))])


def fail():
    raise TypeError("a bug in the agent")


def observe(outcome):
    return {"category": outcome.output} if isinstance(outcome, Answered) else {}


sorter = govern(Agent(FunctionModel(sort), instructions=PROMPT), name="sorter")
sorter_evals = EvalSpec(agent=sorter, cases=HERE / "cases.yaml", observe=observe)
buggy = govern(Agent(FunctionModel(sort), instructions=[PROMPT, fail]), name="buggy")
buggy_evals = EvalSpec(agent=buggy, cases=HERE / "cases.yaml", observe=observe)
'''
CASES = """\
# Sorted by hand.
name: sorter
description: What a message is about.
cases:
  - {id: late, input: my parcel is late, expect: {category: delivery}, source: this test, date: 2026-01-01}
  - {id: twice, input: I paid twice, expect: {category: billing}, source: this test, date: 2026-01-01}
  - {id: thanks, input: thank you, expect: {category: other}, source: this test, date: 2026-01-01}
"""
GOOD, WORSE = "parcel: delivery\npaid: billing", "parcel: delivery"


class Shop(Folder):
    """A folder with the sorting agent and its frozen eval set."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, TOML)
        (path / "sorting.py").write_text(AGENTS)
        (path / "cases.yaml").write_text(CASES)
        freeze(path / "cases.yaml", "first", SystemClock().now().date())
        self.set_prompt(GOOD)

    def set_prompt(self, text: str) -> None:
        """Changes the agent's prompt."""
        (self.path / "prompt.txt").write_text(text)

    def run(self, text: str) -> str:
        """Runs the agent and returns the run's id."""
        run_id: str = self.handrail("run", "sorter", text, "--json").json["outcome"]["facts"]["run_id"]
        return run_id

    def add_feedback(self, run_id: str, expected: dict[str, Any]) -> None:
        """Stores Ann's feedback that a run was wrong."""
        now = SystemClock().now()
        entry = Feedback(
            feedback_id=new_id("ver", now),
            run_id=run_id,
            tenant="default",
            right=False,
            expected=expected,
            note=None,
            by="ann",
            at=now,
        )
        database = Database.open("handrail.db", self.path)
        database.write_now(add_feedback(entry))
        database.close()

    def case_ids_of(self, run_id: str) -> list[str | None]:
        """The case that each feedback on a run became, or None."""
        database = Database.open("handrail.db", self.path)
        entries = database.read_now(load_feedback(run_id))
        database.close()
        return [entry.case_id for entry in entries]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def problem(result: CommandResult) -> dict[str, str]:
    """The error of a command with --json that failed with exit code 2."""
    assert (result.code, result.out) == (2, "")
    error: dict[str, str] = json.loads(result.err)["error"]
    return error


def test_a_worse_prompt_is_blocked_and_the_fixed_one_passes(shop: Shop) -> None:
    """For a worse prompt the gate exits with 1 and names the newly failing case; for the fixed one it exits with 0."""
    baseline = shop.handrail("eval", "baseline", "sorter", "--by", "ann")
    assert (baseline.code, baseline.err) == (0, "")
    assert "Baseline 100.0%" in baseline.out
    shop.set_prompt(WORSE)
    blocked = shop.handrail("eval", "gate", "sorter")
    assert (blocked.code, blocked.err) == (1, "")
    assert (
        "Dropped 33.3 points, from 100.0% to 66.7%, the same in every trial; blocked; a set of 3 cases detects"
        in blocked.out
    )
    assert 'category: "billing" expected, "other" found' in blocked.out
    assert "by ann" in blocked.out
    shop.set_prompt(GOOD)
    passed = shop.handrail("eval", "gate", "sorter")
    assert passed.code == 0
    assert "Stayed at 100.0%, the same in every trial; passed" in passed.out
    assert ", the same as the baseline's, 1 trial of each case" in passed.out


def test_the_gate_as_json(shop: Shop) -> None:
    """The JSON has the verdict in numbers and in words, both fingerprints and the report."""
    baseline = shop.handrail("eval", "baseline", "sorter", "--json", "--concurrency", "3").json
    assert baseline["score"]["mean"] == 1.0
    shop.set_prompt(WORSE)
    blocked = shop.handrail("eval", "gate", "sorter", "--json")
    assert blocked.code == 1
    verdict = blocked.json["verdict"]
    assert (verdict["passed"], verdict["cases"], verdict["newly_failing"]) == (False, 3, ["twice"])
    assert (verdict["baseline"], verdict["margin"]) == (1.0, 0.03)
    assert verdict["drop"] == pytest.approx(1 / 3)
    assert blocked.json["summary"].startswith("dropped 33.3 points")
    assert (verdict["trials"], verdict["baseline_trials"], verdict["decided_by"]) == (2, 8, "sequential rule")
    assert blocked.json["baseline"] == baseline["baseline"]
    assert len({baseline["baseline"]["agent_hash"], blocked.json["agent_hash"], None}) == 3
    assert len(blocked.json["report"]["trials"]) == 6


@pytest.mark.slow
def test_errors_that_prevent_a_verdict(shop: Shop) -> None:
    """A missing or outdated baseline, an unfrozen eval set and a bug in the agent each exit with 2."""
    missing = problem(shop.handrail("eval", "gate", "sorter", "--json"))
    assert missing["code"] == "no_baseline"
    assert "`handrail eval baseline sorter`" in missing["message"]
    assert problem(shop.handrail("eval", "baseline", "buggy", "--json"))["code"] == "bug"
    assert shop.handrail("eval", "baseline", "sorter").code == 0
    cases = shop.path / "cases.yaml"
    cases.write_text(CASES.replace("thank you", "many thanks"))
    unfrozen = problem(shop.handrail("eval", "gate", "sorter", "--json"))
    assert (unfrozen["code"], "changed: thanks" in unfrozen["message"]) == ("bad_input", True)
    freeze(cases, "more thanks", SystemClock().now().date())
    changed = problem(shop.handrail("eval", "gate", "sorter", "--json"))
    assert changed["code"] == "no_baseline"
    assert "the set has changed since its baseline" in changed["message"]


@pytest.mark.slow
def test_an_eval_run_becomes_the_baseline(shop: Shop) -> None:
    """`--from` makes a stored eval run the baseline; an unknown one is refused."""
    report = shop.handrail("eval", "run", "sorter", "--json").json["report"]
    promoted = shop.handrail("eval", "baseline", "sorter", "--from", report["eval_run_id"], "--json")
    assert promoted.json["baseline"]["eval_run_id"] == report["eval_run_id"]
    assert shop.handrail("eval", "gate", "sorter").code == 0
    assert problem(shop.handrail("eval", "baseline", "sorter", "--from", "eval_9", "--json"))["code"] == "not_found"


@pytest.mark.slow
def test_a_baseline_in_a_file(shop: Shop) -> None:
    """A baseline file works with an empty store, also with recorded responses, and still blocks a worse prompt."""
    write = ("--write", "baseline.jsonl", "--trials", "1", "--cache", "recorded.jsonl")
    baseline = shop.handrail("eval", "baseline", "sorter", *write)
    assert (baseline.code, baseline.err) == (0, "")
    assert "Baseline 100.0% ± 0.0 (3 cases), 1 trial of each case" in baseline.out
    assert "Written to baseline.jsonl: review it and commit it with the eval set." in baseline.out
    elsewhere = {"HANDRAIL_STORE": "elsewhere.db"}
    gate = ("eval", "gate", "sorter", "--baseline", "baseline.jsonl")
    replayed = shop.handrail(*gate, "--trials", "1", "--recorded", "recorded.jsonl", env=elsewhere)
    assert replayed.code == 0, replayed.err
    assert ", the same as the baseline's, 1 trial of each case" in replayed.out
    shop.set_prompt(WORSE)
    blocked = shop.handrail(*gate, "--trials", "1", "--json", env=elsewhere)
    assert (blocked.code, blocked.json["verdict"]["newly_failing"]) == (1, ["twice"])
    diff = shop.handrail("eval", "diff", "baseline", "newest", "--newly-failing", env=elsewhere)
    assert "twice" in diff.out
    assert "Whether its prompt has is unknown" in diff.out
    shown = shop.handrail("eval", "show", blocked.json["baseline"]["eval_run_id"], env=elsewhere)
    assert (shown.code, "late" in shown.out) == (0, True)
    unrecorded = problem(shop.handrail(*gate, "--trials", "1", "--recorded", "recorded.jsonl", "--json", env=elsewhere))
    assert (unrecorded["code"], "record the responses again" in unrecorded["message"]) == ("not_recorded", True)


@pytest.mark.slow
def test_an_eval_run_in_a_file(shop: Shop) -> None:
    """`--from` with `--write` writes a stored eval run to a baseline file, which the same store can use."""
    report = shop.handrail("eval", "run", "sorter", "--trials", "2", "--json").json["report"]
    promoted = shop.handrail(
        "eval", "baseline", "sorter", "--from", report["eval_run_id"], "--write", "b.jsonl", "--json"
    )
    assert promoted.json["file"] == "b.jsonl"
    gated = shop.handrail("eval", "gate", "sorter", "--baseline", "b.jsonl", "--json").json
    assert gated["baseline"] == promoted.json["baseline"]
    assert gated["verdict"]["baseline_trials"] == 2


@pytest.mark.slow
def test_invalid_baseline_files(shop: Shop) -> None:
    """A missing folder or file and a changed eval set exit with 2 and advice."""
    nowhere = problem(shop.handrail("eval", "baseline", "sorter", "--write", "none/b.jsonl", "--json"))
    assert "there is no folder none; create it" in nowhere["message"]
    assert shop.handrail("eval", "list", "--json").json == []
    missing = problem(shop.handrail("eval", "gate", "sorter", "--baseline", "b.jsonl", "--json"))
    assert "`handrail eval baseline AGENT --write b.jsonl` writes one" in missing["message"]
    assert shop.handrail("eval", "baseline", "sorter", "--trials", "1", "--write", "b.jsonl").code == 0
    (shop.path / "cases.yaml").write_text(CASES.replace("thank you", "many thanks"))
    freeze(shop.path / "cases.yaml", "more thanks", SystemClock().now().date())
    changed = problem(shop.handrail("eval", "gate", "sorter", "--baseline", "b.jsonl", "--json"))
    assert changed["code"] == "no_baseline"
    assert "run `handrail eval baseline sorter --write b.jsonl` with the agent as it is" in changed["message"]


@pytest.mark.slow
def test_a_run_with_feedback_becomes_a_case(shop: Shop) -> None:
    """A run with feedback is appended to the eval set and its lock, and the existing bytes of the set are unchanged."""
    run_id = shop.run("my parcel came, but I paid for two\nof them")
    shop.add_feedback(run_id, {"category": "billing"})
    added = shop.handrail("eval", "add", "sorter", "--from-run", run_id, "--why", "billing comes first")
    assert (added.code, added.err) == (0, "")
    assert f"production run {run_id}, marked wrong by ann on " in added.out
    assert "`handrail eval baseline sorter`" in added.out
    cases = shop.path / "cases.yaml"
    assert cases.read_text().startswith(CASES)
    case = load_eval_set(cases).cases[-1]
    assert (case.input, case.expect) == ("my parcel came, but I paid for two\nof them", {"category": "billing"})
    assert shop.case_ids_of(run_id) == [case.id]
    again = problem(shop.handrail("eval", "add", "sorter", "--from-run", run_id, "--why", "again", "--json"))
    assert f"is already case {case.id} of sorter" in again["message"]
    assert shop.handrail("eval", "baseline", "sorter", "--json").json["score"]["mean"] == 0.75


@pytest.mark.parametrize(
    ("written", "value"),
    [("true", True), ("null", None), ("", None), ("7", 7), ("a=b", "a=b"), ('"7"', "7"), ("two words", "two words")],
)
def test_a_field_is_read_as_yaml(written: str, value: JsonValue) -> None:
    """The value after the first equals sign is parsed as YAML, as in an eval set."""
    assert parse_fields(["order=1", f"category={written}"]) == {"order": 1, "category": value}


@pytest.mark.parametrize(
    "written", ["category", "=other", "a=[other]", "a={", "a=2026-01-01", "a=2026-13-01", "a=b: c", "a=.inf", "a=.nan"]
)
def test_invalid_fields(written: str) -> None:
    """A field that is not FIELD=VALUE with a text, a number, true, false or null is refused."""
    with pytest.raises(BadInput, match=r"--expected .*(FIELD=VALUE|is not text)"):
        parse_fields([written])


def test_a_repeated_field_is_refused() -> None:
    """Two values for one field are refused."""
    with pytest.raises(BadInput, match="names a field twice"):
        parse_fields(["a=1", "a=1"])


@pytest.mark.slow
def test_the_expected_value_as_an_option(shop: Shop) -> None:
    """Without feedback `--expected` gives the expected fields; unknown ones are refused, and the set is not changed."""
    run_id = shop.run("hello")
    add = ("eval", "add", "sorter", "--from-run", run_id, "--why", "a greeting", "--json")
    unknown = problem(shop.handrail(*add, "--expected", "kind=other"))
    assert "no case of sorter expects 'kind'" in unknown["message"]
    assert "nobody has said yet" in problem(shop.handrail(*add))["message"]
    assert (shop.path / "cases.yaml").read_text() == CASES
    added = shop.handrail(*add, "--expected", "category=other", "--id", "greeting", "--by", "ben").json
    assert (added["case"]["id"], added["case"]["expect"], added["written"]) == ("greeting", {"category": "other"}, True)
    assert f"{run_id}, judged by ben on" in added["case"]["source"]

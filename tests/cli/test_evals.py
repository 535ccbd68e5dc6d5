"""`handrail eval baseline`, `gate` and `add`: from the first baseline to a case out of production, by exit codes."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from handrail.cli.options import read_fields
from handrail.evals.eval_set.model import freeze, load_set
from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.kernel.errors import BadInput
from handrail.kernel.ids import new_id
from handrail.review.feedback import Verdict, give_verdict, verdicts_of
from tests.cli.terminal import Ended, Folder

TOML = '[agents]\nsorter = "sorting:sorter"\nbuggy = "sorting:buggy"\n'
AGENTS = '''\
"""An agent that sorts messages as its prompt says."""

from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

from handrail import Answered, EvalSpec, govern

HERE = Path(__file__).parent
PROMPT = (HERE / "prompt.txt").read_text()


def sort(messages, info):
    heard = messages[-1].parts[-1].content
    rules = dict(line.split(": ") for line in messages[-1].instructions.splitlines())
    return ModelResponse([TextPart(next((kind for word, kind in rules.items() if word in heard), "other"))])


def fail(messages, info):
    raise TypeError("a bug in the agent")


def observe(outcome):
    return {"category": outcome.output} if isinstance(outcome, Answered) else {}


trials = EvalSpec(cases=HERE / "cases.yaml", observe=observe)
sorter = govern(Agent(FunctionModel(sort), instructions=PROMPT), name="sorter", trials=trials)
buggy = govern(Agent(FunctionModel(fail), instructions=PROMPT), name="buggy", trials=trials)
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
    """A folder with the sorting agent and its set, frozen."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, TOML)
        (path / "sorting.py").write_text(AGENTS)
        (path / "cases.yaml").write_text(CASES)
        freeze(path / "cases.yaml", "first", SystemClock().now().date())
        self.prompt(GOOD)

    def prompt(self, text: str) -> None:
        """Gives the agent another prompt."""
        (self.path / "prompt.txt").write_text(text)

    def ran(self, text: str) -> str:
        """The id of a run of production."""
        run: str = self.handrail("run", "sorter", text, "--json").json["outcome"]["facts"]["run_id"]
        return run

    def marked(self, run_id: str, should: dict[str, Any]) -> Any:
        """Ann's verdict on a run."""
        now = SystemClock().now()
        verdict = Verdict(
            verdict_id=new_id("ver", now),
            run_id=run_id,
            tenant="default",
            right=False,
            should=should,
            note=None,
            by="ann",
            at=now,
        )
        database = Database.open("handrail.db", self.path)
        database.write_now(give_verdict(verdict))
        database.close()

    def used_in(self, run_id: str) -> list[str | None]:
        """The cases that the run's verdicts went into."""
        database = Database.open("handrail.db", self.path)
        found = database.read_now(lambda conn: verdicts_of(conn, run_id))
        database.close()
        return [each.case_id for each in found]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def problem(ended: Ended) -> dict[str, str]:
    """The error that a command with --json ended in."""
    assert (ended.code, ended.out) == (2, "")
    error: dict[str, str] = json.loads(ended.err)["error"]
    return error


def test_a_worse_prompt_is_blocked_and_the_mended_one_passes(shop: Shop) -> None:
    """A prompt worse than the baseline's ends the gate with 1 and the case that fails now; the mended one with 0."""
    based = shop.handrail("eval", "baseline", "sorter", "--by", "ann")
    assert (based.code, based.err) == (0, "")
    assert "Baseline 100.0%" in based.out
    shop.prompt(WORSE)
    blocked = shop.handrail("eval", "gate", "sorter")
    assert (blocked.code, blocked.err) == (1, "")
    assert "Dropped 33.3 points, from 100.0% to 66.7%, alike in every trial; blocked; a set of 3 sees" in blocked.out
    assert 'category: "billing" expected, "other" found' in blocked.out
    assert "by ann" in blocked.out
    shop.prompt(GOOD)
    passed = shop.handrail("eval", "gate", "sorter")
    assert passed.code == 0
    assert "Stayed at 100.0%, alike in every trial; passed" in passed.out
    assert ", the same as the baseline's, 1 trial of each case" in passed.out


def test_the_gate_for_programs(shop: Shop) -> None:
    """The JSON has the verdict in numbers and in words, both fingerprints and the report; a bug is no verdict."""
    based = shop.handrail("eval", "baseline", "sorter", "--json", "--at-once", "3").json
    assert based["score"]["mean"] == 1.0
    shop.prompt(WORSE)
    blocked = shop.handrail("eval", "gate", "sorter", "--json")
    assert blocked.code == 1
    verdict = blocked.json["verdict"]
    assert (verdict["passed"], verdict["cases"], verdict["newly_failing"]) == (False, 3, ["twice"])
    assert (verdict["baseline"], verdict["margin"]) == (1.0, 0.03)
    assert verdict["drop"] == pytest.approx(1 / 3)
    assert blocked.json["says"].startswith("dropped 33.3 points")
    assert (verdict["trials"], verdict["baseline_trials"], verdict["decided_by"]) == (2, 8, "sequential rule")
    assert blocked.json["baseline"] == based["baseline"]
    assert len({based["baseline"]["agent_hash"], blocked.json["agent_hash"], None}) == 3
    assert len(blocked.json["report"]["trials"]) == 6


def test_what_keeps_the_gate_from_a_verdict(shop: Shop) -> None:
    """No baseline, a set that changed since, an unfrozen set and a bug in the agent each end in 2, not in a verdict."""
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


def test_an_eval_run_becomes_the_baseline(shop: Shop) -> None:
    """`--from` takes an eval run that is there; one that is not is refused by name."""
    report = shop.handrail("eval", "run", "sorter", "--json").json["report"]
    promoted = shop.handrail("eval", "baseline", "sorter", "--from", report["eval_run_id"], "--json")
    assert promoted.json["baseline"]["eval_run_id"] == report["eval_run_id"]
    assert shop.handrail("eval", "gate", "sorter").code == 0
    assert problem(shop.handrail("eval", "baseline", "sorter", "--from", "eval_9", "--json"))["code"] == "not_found"


def test_a_baseline_in_a_file(shop: Shop) -> None:
    """A baseline that was written gates in a store that has none, by its recorded answers too; a worse prompt is 1."""
    write = ("--write", "baseline.jsonl", "--trials", "1", "--cache", "recorded.jsonl")
    based = shop.handrail("eval", "baseline", "sorter", *write)
    assert (based.code, based.err) == (0, "")
    assert "Baseline 100.0% ± 0.0 (3 cases), 1 trial of each case" in based.out
    assert "Written to baseline.jsonl: review it and commit it beside the set." in based.out
    elsewhere = {"HANDRAIL_STORE": "elsewhere.db"}
    gate = ("eval", "gate", "sorter", "--baseline", "baseline.jsonl")
    replayed = shop.handrail(*gate, "--trials", "1", "--recorded", "recorded.jsonl", env=elsewhere)
    assert replayed.code == 0, replayed.err
    assert ", the same as the baseline's, 1 trial of each case" in replayed.out
    shop.prompt(WORSE)
    blocked = shop.handrail(*gate, "--trials", "1", "--json", env=elsewhere)
    assert (blocked.code, blocked.json["verdict"]["newly_failing"]) == (1, ["twice"])
    compared = shop.handrail("eval", "diff", "baseline", "newest", "--newly-failing", env=elsewhere)
    assert "twice" in compared.out
    assert "whether its prompt is cannot be told" in compared.out
    shown = shop.handrail("eval", "show", blocked.json["baseline"]["eval_run_id"], env=elsewhere)
    assert (shown.code, "late" in shown.out) == (0, True)
    unrecorded = problem(shop.handrail(*gate, "--trials", "1", "--recorded", "recorded.jsonl", "--json", env=elsewhere))
    assert (unrecorded["code"], "record anew" in unrecorded["message"]) == ("not_recorded", True)


def test_an_eval_run_in_a_file(shop: Shop) -> None:
    """`--from` with `--write` puts an eval run that is there into a file; the same store can be compared with it."""
    report = shop.handrail("eval", "run", "sorter", "--trials", "2", "--json").json["report"]
    promoted = shop.handrail(
        "eval", "baseline", "sorter", "--from", report["eval_run_id"], "--write", "b.jsonl", "--json"
    )
    assert promoted.json["file"] == "b.jsonl"
    gated = shop.handrail("eval", "gate", "sorter", "--baseline", "b.jsonl", "--json").json
    assert gated["baseline"] == promoted.json["baseline"]
    assert gated["verdict"]["baseline_trials"] == 2


def test_what_no_baseline_file_is(shop: Shop) -> None:
    """A folder or a file that is not there, and a set that has changed since, end in 2 with what to do."""
    nowhere = problem(shop.handrail("eval", "baseline", "sorter", "--write", "none/b.jsonl", "--json"))
    assert "there is no folder none; make it" in nowhere["message"]
    assert shop.handrail("eval", "list", "--json").json == []
    missing = problem(shop.handrail("eval", "gate", "sorter", "--baseline", "b.jsonl", "--json"))
    assert "`handrail eval baseline AGENT --write b.jsonl` writes one" in missing["message"]
    assert shop.handrail("eval", "baseline", "sorter", "--trials", "1", "--write", "b.jsonl").code == 0
    (shop.path / "cases.yaml").write_text(CASES.replace("thank you", "many thanks"))
    freeze(shop.path / "cases.yaml", "more thanks", SystemClock().now().date())
    changed = problem(shop.handrail("eval", "gate", "sorter", "--baseline", "b.jsonl", "--json"))
    assert changed["code"] == "no_baseline"
    assert "run `handrail eval baseline sorter --write b.jsonl` with the agent as it is" in changed["message"]


def test_a_run_marked_wrong_becomes_a_case(shop: Shop) -> None:
    """A run that was marked goes into the set and its lock, the set's own bytes kept; then the baseline is next."""
    run_id = shop.ran("my parcel came, but I paid for two\nof them")
    shop.marked(run_id, {"category": "billing"})
    added = shop.handrail("eval", "add", "sorter", "--from-run", run_id, "--why", "billing comes first")
    assert (added.code, added.err) == (0, "")
    assert f"production run {run_id}, marked wrong by ann on " in added.out
    assert "`handrail eval baseline sorter`" in added.out
    cases = shop.path / "cases.yaml"
    assert cases.read_text().startswith(CASES)
    case = load_set(cases).cases[-1]
    assert (case.input, case.expect) == ("my parcel came, but I paid for two\nof them", {"category": "billing"})
    assert shop.used_in(run_id) == [case.id]
    again = problem(shop.handrail("eval", "add", "sorter", "--from-run", run_id, "--why", "again", "--json"))
    assert f"is case {case.id} of sorter already" in again["message"]
    assert shop.handrail("eval", "baseline", "sorter", "--json").json["score"]["mean"] == 0.75


@pytest.mark.parametrize(
    ("written", "value"),
    [("true", True), ("null", None), ("", None), ("7", 7), ("a=b", "a=b"), ('"7"', "7"), ("two words", "two words")],
)
def test_a_field_is_read_as_yaml(written: str, value: JsonValue) -> None:
    """The value after the first equals sign is read as in the set itself."""
    assert read_fields(["order=1", f"category={written}"]) == {"order": 1, "category": value}


@pytest.mark.parametrize(
    "written", ["category", "=other", "a=[other]", "a={", "a=2026-01-01", "a=2026-13-01", "a=b: c", "a=.inf", "a=.nan"]
)
def test_what_is_no_field(written: str) -> None:
    """What is not FIELD=VALUE with a text, a number, true, false or null is refused in its own words."""
    with pytest.raises(BadInput, match=r"--should .*(FIELD=VALUE|is no text)"):
        read_fields([written])


def test_a_field_is_given_once() -> None:
    """Two values for one field are refused."""
    with pytest.raises(BadInput, match="stands twice"):
        read_fields(["a=1", "a=1"])


def test_what_is_right_can_be_given(shop: Shop) -> None:
    """Without a verdict `--should` says what is right; what the set cannot expect is refused, and the set stays."""
    run_id = shop.ran("hello")
    add = ("eval", "add", "sorter", "--from-run", run_id, "--why", "a greeting", "--json")
    unknown = problem(shop.handrail(*add, "--should", "kind=other"))
    assert "no case of sorter expects 'kind'" in unknown["message"]
    assert "nobody said yet" in problem(shop.handrail(*add))["message"]
    assert (shop.path / "cases.yaml").read_text() == CASES
    added = shop.handrail(*add, "--should", "category=other", "--id", "greeting", "--by", "ben").json
    assert (added["case"]["id"], added["case"]["expect"], added["written"]) == ("greeting", {"category": "other"}, True)
    assert f"{run_id}, judged by ben on" in added["case"]["source"]

"""Importing eval sets from other tools and exporting them."""

import csv
import datetime as dt
import io
import json
import re
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail import BadInput
from handrail.evals.eval_set.formats.conversion import (
    ImportedCases,
    ImportOptions,
    read_cases,
    to_jsonl,
    to_pydantic_evals,
)
from handrail.evals.eval_set.formats.readers import Format
from handrail.evals.eval_set.model import Case, EvalSet, load_eval_set
from handrail.evals.from_production.candidates import write_cases
from handrail.evals.junit import eval_run_to_junit
from handrail.evals.scorers.score import TrialScore
from handrail.evals.store.eval_runs import EvalRunView
from tests.evals.scorer_contexts import ON, case, trial
from tests.services.peers import peer_python

LAYOUT = ImportOptions(source="tickets of May", date=ON, columns={})
# Only characters that YAML and XML can represent; control characters have their own test.
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
lines = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=20).map(
    lambda text: " ".join(text.split())
)
lines = lines.filter(lambda text: text != "" and len(text.splitlines()) == 1)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=4,
)
cases = st.builds(
    Case,
    id=st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8})?", fullmatch=True),
    input=texts,
    input_file=st.none(),
    expect=st.dictionaries(texts, values, min_size=1, max_size=3),
    source=lines,
    date=st.dates(dt.date(2000, 1, 1)),
    tags=st.lists(lines, max_size=3).map(tuple),
)
sets = st.lists(cases, min_size=1, max_size=3, unique_by=lambda case: case.id).map(
    lambda members: EvalSet(name="s", description="s", cases=tuple(members))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exchange")


def read(folder: Path, name: str, text: str, columns: dict[str, str] | None = None, **more: Any) -> ImportedCases:
    path = folder / name
    path.write_bytes(text.encode())
    return read_cases(path, ImportOptions(source="tickets of May", date=ON, columns=columns or {}), **more)


@given(sets)
def test_export_and_import(folder: Path, loaded: EvalSet) -> None:
    """Cases exported for pydantic-evals or as JSON Lines are imported unchanged, with nothing left out."""
    for name, text in (("a.yaml", to_pydantic_evals(loaded)), ("a.jsonl", to_jsonl(loaded))):
        imported = read(folder, name, text)
        assert [case.content_hash for case in imported.cases] == [case.content_hash for case in loaded.cases]
        assert imported.left_out == {}


@given(sets)
def test_a_new_set(folder: Path, loaded: EvalSet) -> None:
    """Cases that are written as a new set are read as a set with the same content."""
    path = folder / "new.yaml"
    path.unlink(missing_ok=True)
    write_cases(path, "s", "from: elsewhere #1", loaded.cases, "# A comment.\n")
    assert load_eval_set(path).content_hash == loaded.content_hash
    with pytest.raises(BadInput, match="exists already"):
        write_cases(path, "s", "s", loaded.cases)


PYDANTIC_EVALS = """\
name: capitals
cases:
- name: The capital of France
  inputs: {question: What is it?, country: France}
  expected_output: Paris
  metadata: {source: quiz 7, tags: [easy]}
  evaluators: [IsInstance: str, LLMJudge: polite]
- inputs: Say hello.
  evaluators: []
- name: The capital of France
  inputs: Again?
  expected_output: {city: Paris, sure: true}
evaluators: [EqualsExpected]
"""


def test_a_dataset_of_pydantic_evals(tmp_path: Path) -> None:
    """Names become ids, structured inputs JSON, single outputs the field `output`; anything else is counted."""
    imported = read(tmp_path, "capitals.yaml", PYDANTIC_EVALS)
    first, second = imported.cases
    assert (first.id, first.source, first.tags) == ("the-capital-of-france", "quiz 7", ("easy",))
    assert json.loads(first.input) == {"question": "What is it?", "country": "France"}
    assert first.expect == {"output": "Paris"}
    assert (second.id, second.expect) == ("the-capital-of-france-2", {"city": "Paris", "sure": True})
    assert (second.source, second.date) == ("tickets of May", ON)
    assert imported.left_out == {"evaluators of cases": 2, "cases that expect nothing": 1, "evaluators": 1}
    mapped = read(
        tmp_path, "capitals.yaml", PYDANTIC_EVALS.replace("Again?", "{question: Again?}"), {"input": "inputs.question"}
    )
    assert [case.input for case in mapped.cases] == ["What is it?", "Again?"]


PROMPTFOO = """\
prompts: [p]
defaultTest: {options: {}}
tests:
- description: greeting
  vars: {message: Hello}
  assert:
  - {type: equals, value: other}
  - {type: contains, value: Hi}
- vars: {message: My parcel, lang: en}
  assert: [{type: equals, value: delivery}]
- file://more.yaml
- vars: {message: Be nice}
  assert: [{type: llm-rubric, value: is nice}]
"""
PROMPTFOO_CSV = """\
message,__expected,__expected2,__description,__metadata:source
Hello,other,contains: Hi,greeting,ticket 7
"One, two",equals: delivery: late,,,
Be nice,llm-rubric: is nice,,,
"""


def test_tests_of_promptfoo(tmp_path: Path) -> None:
    """Equality assertions become the expected output, from YAML and CSV; other assertions are counted by type."""
    imported = read(tmp_path, "promptfoo.yaml", PROMPTFOO, format_="promptfoo")
    assert [(case.id, case.input, case.expect["output"]) for case in imported.cases] == [
        ("greeting", "Hello", "other"),
        ("case-2", '{"message": "My parcel", "lang": "en"}', "delivery"),
    ]
    assert imported.left_out == {
        "defaultTest": 1,
        "assertions of type contains": 1,
        "references to other files": 1,
        "assertions of type llm-rubric": 1,
        "cases that expect nothing": 1,
    }
    table = read(tmp_path, "tests.csv", PROMPTFOO_CSV, format_="promptfoo")
    assert [(case.id, case.input, case.expect["output"], case.source) for case in table.cases] == [
        ("greeting", "Hello", "other", "ticket 7"),
        ("case-2", "One, two", "delivery: late", "tickets of May"),
    ]


@given(st.lists(st.tuples(texts, lines, st.integers(-99, 99)), min_size=1, max_size=4))
def test_tables(folder: Path, rows: list[tuple[str, str, int]]) -> None:
    """The cells of a CSV are text, in columns with :json parsed values; empty cells expect nothing."""
    out = io.StringIO(newline="")
    csv.writer(out).writerows([("body", "expect.queue", "n", "expect.empty"), *((*row, "") for row in rows)])
    imported = read(folder, "t.csv", out.getvalue(), {"input": "body", "expect.n": "n:json"})
    assert [(case.input, case.expect) for case in imported.cases] == [(a, {"queue": b, "n": n}) for a, b, n in rows]
    assert [case.id for case in imported.cases] == [f"case-{n}" for n in range(1, len(rows) + 1)]


@pytest.mark.parametrize(
    ("name", "text", "columns", "message"),
    [
        ("a.txt", "a", {}, "is not a known suffix; give the format with --format"),
        ("a.csv", "", {}, "no cases, read as csv"),
        ("a.csv", "input,a,a\n", {}, ":1: the header has a column twice"),
        ("a.csv", "input,a\nx\n", {}, ":2: 1 cells, but the header has 2"),
        ("a.csv", 'input,a\n"x\n', {}, "not valid CSV"),
        ("a.csv", "body,expect.a\nx,y\n", {}, ":2: no input at 'input'; say where it is with --map input=COLUMN"),
        ("a.csv", 'input,a\n"x\ny",1\nz,{\n', {"expect.a": "a:json"}, ":4: a:json: not JSON"),
        ("a.csv", "input,expect.a,date\nx,1,May\n", {}, ":2: date: "),
        ("a.csv", "input,a\nx,1\n", {}, "cases that expect nothing: 1"),
        ("a.jsonl", '{"input": "x"}\n[1]\n', {"expect.a": "input"}, ":2: list is not a case"),
        ("a.jsonl", "\n{\n", {}, ":2: not valid JSON"),
        ("a.json", "[", {}, "not valid JSON"),
        ("a.yaml", "tests: []\n", {}, "no list of cases; if another tool wrote the file"),
        ("a.yaml", "cases:\n- 5\n", {}, ":2: int is not a case"),
        ("a.yaml", "cases:\n- {inputs: '', expected_output: a}\n", {}, ":2: input: "),
    ],
)
def test_invalid_files(tmp_path: Path, name: str, text: str, columns: dict[str, str], message: str) -> None:
    """A file that is not an eval set is refused with its line and advice."""
    with pytest.raises(BadInput, match=re.escape(message)):
        read(tmp_path, name, text, columns)


PEER = """
import json, sys
from typing import Any
from pydantic_evals import Dataset
dataset = Dataset[str, dict[str, Any], dict[str, Any]].from_file(sys.argv[1])
print(json.dumps([[case.name, case.inputs, case.expected_output] for case in dataset.cases]))
dataset.to_file(sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_exchange_with_pydantic_evals(tmp_path: Path, suffix: str) -> None:
    """Exported files can be loaded by pydantic-evals, and files that it writes can be imported."""
    loaded = EvalSet(
        name="s", description="s", cases=(case("a", "Hi\n\n there ", n=1, word="nö", no=None, deep=[{"x": 1}]),)
    )
    exported, written = tmp_path / "ours.yaml", tmp_path / f"theirs.{suffix}"
    exported.write_text(to_pydantic_evals(loaded), encoding="utf-8")
    output = subprocess.check_output([peer_python(), "-c", PEER, exported, written], text=True)
    assert json.loads(output) == [["a", "Hi\n\n there ", loaded.cases[0].expect]]
    imported = read_cases(written, LAYOUT, "pydantic-evals")
    assert [case.content_hash for case in imported.cases] == [case.content_hash for case in loaded.cases]


VIEW = EvalRunView(
    eval_run_id="eval_1",
    agent="parcels",
    set_hash="ab",
    cases=3,
    started_at=dt.datetime(2026, 11, 22, tzinfo=dt.UTC),
    ended_at=None,
)


def test_junit() -> None:
    """A failure has the expected fields and the scorers' notes; an infrastructure fault is an error."""
    wrong = TrialScore({"category": False, "tone": False}, {"tone": 0.25}, {"tone": "rude"})
    trials = [
        trial("late", True),
        trial("late", False, 2, score=wrong),
        trial("late", False, 3, error="model_timeout"),
    ]
    suite = ElementTree.fromstring(eval_run_to_junit(VIEW, trials, [case()])).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("time")) == (
        "3",
        "1",
        "1",
        "3.000",
    )
    right, failed, faulty = suite.findall("testcase")
    assert len(right) == 0
    failure = failed.find("failure")
    assert failure is not None
    assert (failed.get("name"), failure.get("message")) == ("late (trial 2)", "wrong: category, tone")
    assert failure.text == ('category: "delivery" expected, "other" found\ntone: score 0.25; rude\nrun run_late_2')
    assert [element.tag for element in faulty] == ["error"]


@given(st.text(), st.text())
def test_junit_is_always_xml(observed: str, note: str) -> None:
    """The document is valid XML for any text of an agent, including control characters and lone surrogates."""
    failed = trial(
        "late", False, score=TrialScore({"category": False}, {}, {"category": note}), observed={"category": observed}
    )
    assert ElementTree.fromstring(eval_run_to_junit(VIEW, [failed], [case()]))[0].get("failures") == "1"


def test_every_format_is_known() -> None:
    """Every format has a column for every field of a case."""
    from typing import get_args

    from handrail.evals.eval_set.formats.readers import COLUMNS

    assert set(COLUMNS) == set(get_args(Format))
    assert all(set(columns) == {"id", "input", "expect", "source", "date", "tags"} for columns in COLUMNS.values())

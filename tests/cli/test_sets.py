"""The set at the terminal: its history, its faults, candidates from production, other tools' files, and the diff."""

import json
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml

from handrail.evals.eval_set.model import load_set
from tests.cli.terminal import Ended
from tests.cli.test_evals import GOOD, WORSE, Shop, problem


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop with a baseline by the good prompt and a newer eval run by the worse one."""
    shop = Shop(tmp_path_factory.mktemp("sets"))
    assert shop.handrail("eval", "baseline", "sorter", "--trials", "1").code == 0
    shop.prompt(WORSE)
    assert shop.handrail("eval", "run", "sorter").code == 0
    shop.prompt(GOOD)
    return shop


def diffed(shop: Shop, *more: str, columns: str = "80") -> Ended:
    return shop.handrail("eval", "diff", *more, env={"COLUMNS": columns})


def test_the_schema(shop: Shop) -> None:
    """The schema that is printed accepts a set as people write it, with a file for an input, and no unknown field."""
    schema = shop.handrail("eval", "schema").json
    found = json.loads(json.dumps(yaml.safe_load((shop.path / "cases.yaml").read_text()), default=str))
    jsonschema.validate(found, schema)
    del found["cases"][0]["input"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, schema)
    found["cases"][0]["input_file"] = "thread.txt"
    jsonschema.validate(found, schema)
    found["cases"][0]["colour"] = "red"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(found, schema)


def test_the_history(shop: Shop) -> None:
    """What was frozen, when and why."""
    shown = shop.handrail("eval", "history", "sorter")
    assert (shown.code, "first" in shown.out) == (0, True)
    [change] = shop.handrail("eval", "history", "sorter", "--json").json
    assert (change["why"], change["cases"]) == ("first", 3)


def test_lint(shop: Shop) -> None:
    """Faults end in exit code 1, with what to do; what the prompt or a named file has is found."""
    training = shop.path / "training.txt"
    training.write_text("billing\tI paid twice!\n")
    linted = shop.handrail("eval", "lint", "sorter", "--against", "training.txt", "--json")
    assert linted.code == 1
    findings = {each["kind"]: each["cases"] for each in linted.json["findings"]}
    assert findings == {"size": [], "leak": ["twice"]}
    assert linted.json["prompt_known"]
    shown = shop.handrail("eval", "lint", "sorter")
    assert (shown.code, "`handrail eval draw`" in shown.out) == (1, True)
    assert problem(shop.handrail("eval", "lint", "sorter", "--against", "none.txt", "--json"))["code"] == "bad_input"


def test_exports(shop: Shop) -> None:
    """A set goes out as a dataset and as JSON Lines, an eval run as JUnit with what was expected."""
    dataset = yaml.safe_load(shop.handrail("eval", "export", "sorter", "--to", "pydantic-evals").out)
    assert dataset["cases"][0]["expected_output"] == {"category": "delivery"}
    rows = shop.handrail("eval", "export", "sorter", "--to", "jsonl").out.splitlines()
    assert [json.loads(row)["id"] for row in rows] == ["late", "twice", "thanks"]
    newest = shop.handrail("eval", "list", "--json").json[0]["eval_run"]["eval_run_id"]
    suites = ElementTree.fromstring(shop.handrail("eval", "export", newest, "--to", "junit").out)
    [failure] = suites.iter("failure")
    assert str(failure.text).startswith('category: "billing" expected, "other" found')


def test_imports(shop: Shop) -> None:
    """A CSV becomes a set that can be frozen; a set that is there is never written over."""
    (shop.path / "tickets.csv").write_text("body,queue,urgent\nIt is late,delivery,true\n")
    given = ("eval", "import", "tickets.csv", "--name", "parcels", "--source", "tickets of May", "--out", "new.yaml")
    mapped = ("--map", "input=body", "--map", "expect.queue=queue", "--map", "expect.urgent=urgent:json")
    assert shop.handrail(*given, *mapped, "--json").json == {"file": "new.yaml", "cases": 1, "left_out": {}}
    [case] = load_set(shop.path / "new.yaml").cases
    assert (case.input, case.expect) == ("It is late", {"queue": "delivery", "urgent": True})
    assert "there already" in problem(shop.handrail(*given, *mapped, "--json"))["message"]
    assert "is not FIELD=COLUMN" in problem(shop.handrail(*given, "--map", "colour=red", "--json"))["message"]


def test_the_diff(shop: Shop) -> None:
    """In 80 columns: both scores, the prompt's own change, the case that fell with its words and where it parted."""
    shown = diffed(shop)
    assert (shown.code, shown.err) == (0, "")
    assert max(map(len, shown.out.splitlines())) <= 80
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "score 100.0% ± 0.0 (3 cases) 66.7% ± 33.3 (3 cases)" in lines
    assert "-paid: billing" in lines
    assert "[-billing-]{+other+}" in lines
    parted = lines.index("they part here:")
    assert lines[parted + 1 : parted + 3] == ["- model: billing", "+ model: other"]
    assert any(line.startswith("twice 1.00 -> 0.00") for line in lines)


def test_filters(shop: Shop) -> None:
    """Only the cases with the change that was asked for are shown, and JSON has them in full."""
    assert "twice" not in diffed(shop, "--path-changed", "--newly-passing").out
    found = diffed(shop, "--json", "--newly-failing", "--same-score-different-output").json
    assert [case["case_id"] for case in found["cases"]] == ["twice"]
    assert found["close"][0]["output"] == [{"kind": "removed", "text": "billing"}, {"kind": "added", "text": "other"}]
    assert found["close"][0]["trajectory"]["diverges_at"] == 0


def test_what_cannot_be_compared(shop: Shop) -> None:
    """An eval run that is not there, and a baseline on the wrong side, are refused with what to do."""
    assert problem(shop.handrail("eval", "diff", "eval_9", "newest", "--json"))["code"] == "not_found"
    wrong = problem(shop.handrail("eval", "diff", "newest", "baseline", "--json"))
    assert (wrong["code"], "`handrail eval diff baseline newest`" in wrong["message"]) == ("bad_input", True)


def test_from_production_into_the_set(tmp_path: Path) -> None:
    """Runs are drawn redacted into a file; a completed one is taken, and the set is frozen with it."""
    shop = Shop(tmp_path)
    shop.ran("the parcel for ann@example.com is lost")
    shop.ran("hello you")
    drawn = shop.handrail("eval", "draw", "sorter", "--n", "5", "--json").json["drawn"]
    assert sorted(each["input"] for each in drawn["candidates"]) == ["hello you", "the parcel for [e-mail] is lost"]
    assert "there already" in problem(shop.handrail("eval", "draw", "sorter", "--json"))["message"]
    file = tmp_path / "candidates.yaml"
    file.write_text(file.read_text().replace("expect: {}", "expect: {category: delivery}", 1))
    taken = shop.handrail("eval", "take", "sorter", "candidates.yaml", "--why", "lost parcels")
    assert (taken.code, taken.err) == (0, "")
    assert "1 candidates are not completed" in taken.out
    assert len(load_set(tmp_path / "cases.yaml").cases) == 4
    assert [each["why"] for each in shop.handrail("eval", "history", "sorter", "--json").json] == [
        "first",
        "lost parcels",
    ]

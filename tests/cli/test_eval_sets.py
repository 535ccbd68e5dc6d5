"""Eval sets in the terminal: schema, history, lint, candidates from production, import, export, and the diff."""

import json
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml

from handrail.evals.eval_set.model import load_eval_set
from tests.cli.terminal import CommandResult
from tests.cli.test_evals import GOOD, WORSE, Shop, problem


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop with a baseline of the good prompt and a newer eval run of the worse one."""
    shop = Shop(tmp_path_factory.mktemp("sets"))
    assert shop.handrail("eval", "baseline", "sorter", "--trials", "1").code == 0
    shop.set_prompt(WORSE)
    assert shop.handrail("eval", "run", "sorter").code == 0
    shop.set_prompt(GOOD)
    return shop


def diff(shop: Shop, *more: str, columns: str = "80") -> CommandResult:
    return shop.handrail("eval", "diff", *more, env={"COLUMNS": columns})


def test_the_schema(shop: Shop) -> None:
    """The printed schema accepts a valid eval set, also with an input file, and rejects unknown fields."""
    schema = shop.handrail("eval", "schema").json
    document = json.loads(json.dumps(yaml.safe_load((shop.path / "cases.yaml").read_text()), default=str))
    jsonschema.validate(document, schema)
    del document["cases"][0]["input"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)
    document["cases"][0]["input_file"] = "thread.txt"
    jsonschema.validate(document, schema)
    document["cases"][0]["colour"] = "red"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


def test_the_history(shop: Shop) -> None:
    """The history lists what was frozen, when and why."""
    shown = shop.handrail("eval", "history", "sorter")
    assert (shown.code, "first" in shown.out) == (0, True)
    [change] = shop.handrail("eval", "history", "sorter", "--json").json
    assert (change["why"], change["cases"]) == ("first", 3)


@pytest.mark.slow
def test_lint(shop: Shop) -> None:
    """Issues give exit code 1 and advice; inputs that occur in the prompt or in a given file are found."""
    training = shop.path / "training.txt"
    training.write_text("billing\tI paid twice!\n")
    linted = shop.handrail("eval", "lint", "sorter", "--against", "training.txt", "--json")
    assert linted.code == 1
    issues = {issue["kind"]: issue["cases"] for issue in linted.json["issues"]}
    assert issues == {"size": [], "leak": ["twice"]}
    assert linted.json["prompt_known"]
    shown = shop.handrail("eval", "lint", "sorter")
    assert (shown.code, "`handrail eval sample`" in shown.out) == (1, True)
    assert problem(shop.handrail("eval", "lint", "sorter", "--against", "none.txt", "--json"))["code"] == "bad_input"


@pytest.mark.slow
def test_exports(shop: Shop) -> None:
    """An eval set is exported as a dataset and as JSON Lines, an eval run as JUnit with what was expected."""
    dataset = yaml.safe_load(shop.handrail("eval", "export", "sorter", "--to", "pydantic-evals").out)
    assert dataset["cases"][0]["expected_output"] == {"category": "delivery"}
    rows = shop.handrail("eval", "export", "sorter", "--to", "jsonl").out.splitlines()
    assert [json.loads(row)["id"] for row in rows] == ["late", "twice", "thanks"]
    newest = shop.handrail("eval", "list", "--json").json[0]["eval_run"]["eval_run_id"]
    suites = ElementTree.fromstring(shop.handrail("eval", "export", newest, "--to", "junit").out)
    [failure] = suites.iter("failure")
    assert str(failure.text).startswith('category: "billing" expected, "other" found')


@pytest.mark.slow
def test_imports(shop: Shop) -> None:
    """A CSV becomes an eval set that can be frozen; an existing one is never overwritten."""
    (shop.path / "tickets.csv").write_text("body,queue,urgent\nIt is late,delivery,true\n")
    command = ("eval", "import", "tickets.csv", "--name", "parcels", "--source", "tickets of May", "--out", "new.yaml")
    mapped = ("--map", "input=body", "--map", "expect.queue=queue", "--map", "expect.urgent=urgent:json")
    assert shop.handrail(*command, *mapped, "--json").json == {"file": "new.yaml", "cases": 1, "left_out": {}}
    [case] = load_eval_set(shop.path / "new.yaml").cases
    assert (case.input, case.expect) == ("It is late", {"queue": "delivery", "urgent": True})
    assert "exists already" in problem(shop.handrail(*command, *mapped, "--json"))["message"]
    assert "is not FIELD=COLUMN" in problem(shop.handrail(*command, "--map", "colour=red", "--json"))["message"]


def test_the_diff(shop: Shop) -> None:
    """In 80 columns the diff has both scores, the prompt's change, the worse case, and where its trials diverge."""
    shown = diff(shop)
    assert (shown.code, shown.err) == (0, "")
    assert max(map(len, shown.out.splitlines())) <= 80
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert "score 100.0% ± 0.0 (3 cases) 66.7% ± 33.3 (3 cases)" in lines
    assert "-paid: billing" in lines
    assert "[-billing-]{+other+}" in lines
    divergence = lines.index("the first difference:")
    assert lines[divergence + 1 : divergence + 3] == ["- model: billing", "+ model: other"]
    assert any(line.startswith("twice 1.00 -> 0.00") for line in lines)


def test_filters(shop: Shop) -> None:
    """Only cases with the requested change are shown, and JSON has them in full."""
    assert "twice" not in diff(shop, "--path-changed", "--newly-passing").out
    result = diff(shop, "--json", "--newly-failing", "--same-score-different-output").json
    assert [case["case_id"] for case in result["cases"]] == ["twice"]
    assert result["details"][0]["output"] == [
        {"kind": "removed", "text": "billing"},
        {"kind": "added", "text": "other"},
    ]
    assert result["details"][0]["trajectory"]["diverges_at"] == 0


def test_invalid_comparisons(shop: Shop) -> None:
    """An unknown eval run and a baseline in second place are refused with advice."""
    assert problem(shop.handrail("eval", "diff", "eval_9", "newest", "--json"))["code"] == "not_found"
    wrong = problem(shop.handrail("eval", "diff", "newest", "baseline", "--json"))
    assert (wrong["code"], "`handrail eval diff baseline newest`" in wrong["message"]) == ("bad_input", True)


@pytest.mark.slow
def test_from_production_into_the_set(tmp_path: Path) -> None:
    """Runs are sampled and redacted into a file; a completed one is accepted, and the eval set is frozen with it."""
    shop = Shop(tmp_path)
    shop.run("the parcel for ann@example.com is lost")
    shop.run("hello you")
    sample = shop.handrail("eval", "sample", "sorter", "--n", "5", "--json").json["sample"]
    assert sorted(candidate["input"] for candidate in sample["candidates"]) == [
        "hello you",
        "the parcel for [e-mail] is lost",
    ]
    assert "exists already" in problem(shop.handrail("eval", "sample", "sorter", "--json"))["message"]
    file = tmp_path / "candidates.yaml"
    file.write_text(file.read_text().replace("expect: {}", "expect: {category: delivery}", 1))
    accepted = shop.handrail("eval", "accept", "sorter", "candidates.yaml", "--why", "lost parcels")
    assert (accepted.code, accepted.err) == (0, "")
    assert "1 candidates are incomplete" in accepted.out
    assert len(load_eval_set(tmp_path / "cases.yaml").cases) == 4
    assert [change["why"] for change in shop.handrail("eval", "history", "sorter", "--json").json] == [
        "first",
        "lost parcels",
    ]

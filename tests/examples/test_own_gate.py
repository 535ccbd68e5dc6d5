"""The gate of the reference agent on its recorded responses, as in `make gate` and CI."""

import json
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import pytest

import handrail
from handrail.evals.eval_set.model import load_eval_set
from handrail.evals.store.baseline_file import read_baseline_file
from handrail.examples import support_triage
from tests.cli.terminal import CommandResult, Folder

MODEL = "qwen2.5-coder-1.5b"
EVALS = Path(str(files(support_triage))) / "evals"
BASELINE, RECORDED = EVALS / "baseline.jsonl", EVALS / "recorded.jsonl"
NO_WEIGHTS = {"HANDRAIL_CACHE": "nothing-here"}
DOCUMENTED = Path(__file__).parents[2] / "docs" / "built-in-model.md"


def gate(folder: Path, recorded: Path, *more: str, env: Mapping[str, str] = MappingProxyType({})) -> CommandResult:
    """Runs the gate in a folder with a new store, with recorded responses only and without the weights."""
    workspace = Folder(folder, f'model = "builtin:{MODEL}"\n')
    files = ("--baseline", str(BASELINE), "--recorded", str(recorded))
    return workspace.handrail(
        "eval", "gate", "support-triage", *files, "--trials", "1", *more, env={**NO_WEIGHTS, **env}
    )


@pytest.fixture(scope="module")
def gate_result(tmp_path_factory: pytest.TempPathFactory) -> CommandResult:
    """The result of the gate with the committed files."""
    return gate(tmp_path_factory.mktemp("gate_result"), RECORDED, "--json")


def test_the_agent_passes_as_it_is_committed(gate_result: CommandResult) -> None:
    """The committed agent, eval set, recorded responses and baseline agree: the gate passes without errors."""
    assert gate_result.code == 0, gate_result.err
    verdict, report = gate_result.json["verdict"], gate_result.json["report"]
    assert verdict["passed"]
    assert verdict["cases"] == len(report["trials"]) == len(load_eval_set(EVALS / "cases.yaml").cases)
    assert report["errors"] == []


def test_a_changed_prompt_has_to_be_recorded(tmp_path: Path) -> None:
    """With a changed prompt there are no recorded responses: exit code 2, with advice."""
    copied = tmp_path / "src" / "handrail"
    shutil.copytree(Path(handrail.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    prompt = copied / "examples" / "support_triage" / "prompt.md"
    prompt.write_text(prompt.read_text().replace("customer", "client"))
    result = gate(tmp_path, RECORDED, env={"PYTHONPATH": str(tmp_path / "src")})
    assert result.code == 2
    assert f"no response of builtin:{MODEL} to this request; record the responses again" in result.err


def test_worse_answers_are_blocked(tmp_path: Path) -> None:
    """Answers that are wrong where the baseline's were right exit with 1, and the cases are named."""
    right = {
        trial.case_id
        for trial in read_baseline_file(BASELINE).trials
        if trial.value == 1 and trial.observed.get("category") == "billing"
    }
    assert len(right) >= 3
    worse = tmp_path / "worse.jsonl"
    worse.write_text("".join(_with_wrong_category(line) + "\n" for line in RECORDED.read_text().splitlines()))
    blocked = gate(tmp_path, worse)
    assert (blocked.code, blocked.err) == (1, "")
    assert "; blocked" in blocked.out
    assert {case for case in right if f"\n{case} " in blocked.out} == right


def test_the_documented_score_is_the_recorded_one(gate_result: CommandResult) -> None:
    """The score in docs/built-in-model.md is that of the recorded responses."""
    lines = [line for line in DOCUMENTED.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip(" `*") for cell in line.split("|")[1:-1]] for line in lines]
    models = next(row for row in rows if MODEL in row)
    scores = next(row for row in rows if row[0].startswith("score"))
    score = gate_result.json["report"]["score"]
    assert scores[models.index(MODEL)] == f"{100 * score['mean']:.1f}% ± {100 * score['error']:.1f}"


def _with_wrong_category(line: str) -> str:
    """A recorded response with `billing` replaced by another category."""
    response = json.loads(line)
    for part in response.get("response", {}).get("parts", []):
        if part.get("tool_name") == "final_result" and part["args"]["category"] == "billing":
            part["args"]["category"] = "other"
    return json.dumps(response)

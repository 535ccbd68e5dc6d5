"""This project's own gate: the reference agent on its recorded answers, as `make gate` and CI run it."""

import json
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

import pytest

import handrail
from handrail.evals.eval_set.model import load_set
from handrail.evals.store.baseline_file import read_baseline
from handrail.examples import support_triage
from tests.cli.terminal import Ended, Folder

MODEL = "qwen2.5-coder-1.5b"
EVALS = Path(str(files(support_triage))) / "evals"
BASELINE, RECORDED = EVALS / "baseline.jsonl", EVALS / "recorded.jsonl"
NO_WEIGHTS = {"HANDRAIL_CACHE": "nothing-here"}
DOCUMENTED = Path(__file__).parents[2] / "docs" / "built-in-model.md"


def gate(folder: Path, recorded: Path, *more: str, env: Mapping[str, str] = MappingProxyType({})) -> Ended:
    """The gate in a folder whose store is new, with no answers but the recorded ones, and without the weights."""
    made = Folder(folder, f'model = "builtin:{MODEL}"\n')
    files = ("--baseline", str(BASELINE), "--recorded", str(recorded))
    return made.handrail("eval", "gate", "support-triage", *files, "--trials", "1", *more, env={**NO_WEIGHTS, **env})


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The gate on what is committed."""
    return gate(tmp_path_factory.mktemp("gated"), RECORDED, "--json")


def test_the_agent_passes_as_it_is_committed(gated: Ended) -> None:
    """Agent, set, recorded answers and baseline belong together: the gate passes, and every case was answered."""
    assert gated.code == 0, gated.err
    verdict, report = gated.json["verdict"], gated.json["report"]
    assert verdict["passed"]
    assert verdict["cases"] == len(report["trials"]) == len(load_set(EVALS / "cases.yaml").cases)
    assert report["errors"] == []


def test_a_changed_prompt_has_to_be_recorded(tmp_path: Path) -> None:
    """With another prompt the recorded answers are no longer the agent's: exit code 2, and the way out."""
    copied = tmp_path / "src" / "handrail"
    shutil.copytree(Path(handrail.__file__).parent, copied, ignore=shutil.ignore_patterns("__pycache__"))
    prompt = copied / "examples" / "support_triage" / "prompt.md"
    prompt.write_text(prompt.read_text().replace("customer", "client"))
    ended = gate(tmp_path, RECORDED, env={"PYTHONPATH": str(tmp_path / "src")})
    assert ended.code == 2
    assert f"no response of builtin:{MODEL} to this request; record anew" in ended.err


def test_worse_answers_are_blocked(tmp_path: Path) -> None:
    """Answers that are no longer right where the baseline's were end in 1, and the cases are named."""
    right = {
        each.case_id
        for each in read_baseline(BASELINE).trials
        if each.value == 1 and each.observed.get("category") == "billing"
    }
    assert len(right) >= 3
    worse = tmp_path / "worse.jsonl"
    worse.write_text("".join(_confused(line) + "\n" for line in RECORDED.read_text().splitlines()))
    blocked = gate(tmp_path, worse)
    assert (blocked.code, blocked.err) == (1, "")
    assert "; blocked" in blocked.out
    assert {case for case in right if f"\n{case} " in blocked.out} == right


def test_the_documented_score_is_the_recorded_one(gated: Ended) -> None:
    """The table of docs/built-in-model.md has the score that the recorded answers have."""
    lines = [line for line in DOCUMENTED.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip(" `*") for cell in line.split("|")[1:-1]] for line in lines]
    models = next(row for row in rows if MODEL in row)
    scores = next(row for row in rows if row[0].startswith("score"))
    score = gated.json["report"]["score"]
    assert scores[models.index(MODEL)] == f"{100 * score['mean']:.1f}% ± {100 * score['error']:.1f}"


def _confused(line: str) -> str:
    """A recorded answer that takes bills for something else."""
    found = json.loads(line)
    for part in found.get("response", {}).get("parts", []):
        if part.get("tool_name") == "final_result" and part["args"]["category"] == "billing":
            part["args"]["category"] = "other"
    return json.dumps(found)

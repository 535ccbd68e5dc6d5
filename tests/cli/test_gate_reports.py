"""The gate's reports for pull requests and CI systems, and people's labels at the terminal."""

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
import yaml

from handrail.cli.eval.gate import read_margin
from handrail.evals.eval_set.model import freeze
from handrail.kernel.clock import SystemClock
from handrail.kernel.errors import BadInput
from tests.cli.terminal import Folder

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "docs" / "examples" / "handrail-gate.yml"
HOSTILE = "<img src=x> | [a](http://b) `c` @everyone"
AGENTS = '''\
"""An agent that says again what it hears, judged by a model that finds every short answer polite."""

from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from handrail import Answered, EvalSpec, govern
from handrail.evals import Criterion, Rubric, exact, judge

HERE = Path(__file__).parent
LEVELS = {"yes": "thanks", "no": "curt"}
POLITE = Rubric(criteria=(Criterion(name="polite", asks="Is it polite?", levels=LEVELS),))


def say_again(messages, info):
    heard = str(messages[-1].parts[-1].content)
    return ModelResponse([TextPart(heard + (HERE / "ending.txt").read_text())])


def find_polite(messages, info):
    return ModelResponse([ToolCallPart(info.output_tools[0].name, {"polite": {"reason": "short", "level": "yes"}})])


def observe(outcome):
    return {"said": outcome.output} if isinstance(outcome, Answered) else {}


cases = HERE / "cases.yaml"
echo = govern(Agent(FunctionModel(say_again)), name="echo", trials=EvalSpec(cases=cases, observe=observe))
tone = judge(POLITE, FunctionModel(find_polite), name="tone")
spec = EvalSpec(cases=cases, observe=observe, scorers=(exact(), tone))
judged = govern(Agent(FunctionModel(say_again)), name="judged", trials=spec)
'''


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with an agent and a frozen set of two cases, one of them with marks in it."""
    made = Folder(tmp_path, '[agents]\necho = "speaking:echo"\njudged = "speaking:judged"\n')
    (tmp_path / "speaking.py").write_text(AGENTS)
    (tmp_path / "ending.txt").write_text("")
    rows = [{"id": name, "input": said, "expect": {"said": said}} for name, said in (("a", "hi"), ("b", HOSTILE))]
    cases = [{**row, "source": "this test", "date": "2026-01-01"} for row in rows]
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump({"name": "echo", "description": "Echo.", "cases": cases}))
    freeze(tmp_path / "cases.yaml", "first", SystemClock().now().date())
    return made


def test_reports_of_a_block(folder: Folder) -> None:
    """The Markdown has verdict, table, bars and diff, no user's marks as markup; the JUnit file has the failures."""
    assert folder.handrail("eval", "baseline", "echo", "--trials", "2").code == 0
    (folder.path / "ending.txt").write_text("!")
    reports = ("--markdown", "summary.md", "--junit", "gate.xml", "--chart", "gate.svg")
    assert folder.handrail("eval", "gate", "echo", *reports).code == 1
    summary = (folder.path / "summary.md").read_text()
    assert summary.startswith("## Blocked: echo\n")
    assert "### Newly failing" in summary
    assert "![scores](<gate.svg>)" in summary
    assert "### What changed" in summary
    fenced = re.findall(r"^(`{3,})diff$(.*?)^\1$", summary, re.MULTILINE | re.DOTALL)
    assert len(fenced) == 2
    assert any(f"+ {HOSTILE}!" in block for _, block in fenced)
    around = re.sub(r"^(`{3,})diff$.*?^\1$", "", summary, flags=re.MULTILINE | re.DOTALL)
    for mark in ("<img", "[a]", "`c`", "@everyone"):
        assert mark not in around
    # The entities read as what was said.
    assert HOSTILE in re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), summary)
    suite = Xml.parse(folder.path / "gate.xml").getroot()
    failed = [each.get("name") for each in suite if each.find("failure") is not None]
    assert (suite.get("tests"), suite.get("failures"), failed) == ("3", "3", ["gate", "a", "b"])
    assert (folder.path / "gate.svg").read_text().startswith("<svg")
    passed = folder.handrail("eval", "gate", "echo", "--margin", "100", "--markdown", "summary.md")
    assert passed.code == 0
    assert "█" in (folder.path / "summary.md").read_text()


@pytest.mark.parametrize("written", ["-1", "101", "three", "", "3%%", "1/0"])
def test_what_is_no_margin(written: str) -> None:
    """A margin is points from 0 to 100 or a share of the score."""
    with pytest.raises(BadInput, match="--margin"):
        read_margin(written)


def test_people_label_at_the_terminal(folder: Folder) -> None:
    """A person is shown request, answer and rubric and not the judge's verdict, goes on where they left off, and the
    judge stays distrusted with too few labels."""
    assert folder.handrail("eval", "baseline", "judged", "--trials", "4").code == 0
    label = ("eval", "label", "judged", "--by", "ann", "--share", "0.5")
    first = folder.handrail(*label, stdin=b"maybe\nr\nq\n")
    assert first.code == 0, first.err
    assert "1 labelled by ann; go on later" in first.out
    assert "Is it polite?" in first.out
    assert "short" not in first.out
    rest = folder.handrail(*label, stdin=b"w\ns\nr\n")
    assert "3 labelled by ann, none is left for you" in rest.out
    assert "0 labelled by ann" in folder.handrail(*label).out
    found = folder.handrail("eval", "calibrate", "judged", "--json")
    assert found.code == 1
    assert (found.json["calibration"]["labels"], found.json["calibration"]["failures"]) == (3, 1)
    assert "1 labelled failures, 15 are needed" in found.json["distrusted"]
    told = folder.handrail("eval", "calibrate", "judged")
    assert "Judge tone is not to be trusted" in told.out
    gated = folder.handrail("eval", "gate", "judged")
    assert gated.code == 0
    assert "Judge tone is not trusted" in gated.out


def test_nobody_at_the_terminal(folder: Folder) -> None:
    """Without answers the labels that were given stay, and the command says that it needs a terminal."""
    assert folder.handrail("eval", "baseline", "judged", "--trials", "4").code == 0
    ended = folder.handrail("eval", "label", "judged", "--by", "ann", "--share", "0.5", stdin=b"r\n")
    assert ended.code == 2
    assert "run it in a terminal" in ended.err
    assert folder.handrail("eval", "calibrate", "judged", "--json").json["calibration"]["labels"] == 1


def test_the_workflow_is_one_that_runs(folder: Folder) -> None:
    """Every command of the example workflow is one that the program has, with the options it gives."""
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["gate"]["steps"]
    lines = [line.strip() for step in steps for line in step.get("run", "").splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("handrail ")]
    assert [command[2] for command in commands] == ["baseline", "gate"]
    for command in commands:
        ended = folder.handrail(*command[1:3], "--help", env={"COLUMNS": "200"})
        options = {word for word in command if word.startswith("--")}
        assert {each for each in options if each in ended.out} == options

"""The gate's reports for pull requests and CI systems, and people's labels at the terminal."""

import re
import shlex
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
import yaml

from handrail.cli.eval.gate import read_margin
from handrail.evals.eval_set.lock import freeze
from handrail.kernel.clock import SystemClock
from handrail.kernel.errors import BadInput
from tests.cli.terminal import Folder

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / "docs" / "examples" / "handrail-gate.yml"
HOSTILE = "<img src=x> | [a](http://b) `c` @everyone"
AGENTS = '''\
"""An agent that repeats its input, and a judge that finds every answer polite."""

from pathlib import Path

from pydantic_ai import Agent
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from handrail import Answered, govern
from handrail.evals import EvalSpec
from handrail.evals import Criterion, Rubric, exact, judge

HERE = Path(__file__).parent
LEVELS = {"yes": "thanks", "no": "curt"}
POLITE = Rubric(criteria=(Criterion(name="polite", question="Is it polite?", levels=LEVELS),))


def repeat(messages, info):
    message = str(messages[-1].parts[-1].content)
    return ModelResponse([TextPart(message + (HERE / "ending.txt").read_text())])


def find_polite(messages, info):
    return ModelResponse([ToolCallPart(info.output_tools[0].name, {"polite": {"reason": "short", "level": "yes"}})])


def observe(outcome):
    return {"reply": outcome.output} if isinstance(outcome, Answered) else {}


cases = HERE / "cases.yaml"
echo = govern(Agent(FunctionModel(repeat)), name="echo")
echo_evals = EvalSpec(agent=echo, cases=cases, observe=observe)
tone = judge(POLITE, FunctionModel(find_polite), name="tone")
judged = govern(Agent(FunctionModel(repeat)), name="judged")
judged_evals = EvalSpec(agent=judged, cases=cases, observe=observe, scorers=(exact(), tone))
'''


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A folder with an agent and a frozen eval set of two cases, one of them with markup in it."""
    folder = Folder(tmp_path, '[agents]\necho = "speaking:echo"\njudged = "speaking:judged"\n')
    (tmp_path / "speaking.py").write_text(AGENTS)
    (tmp_path / "ending.txt").write_text("")
    rows = [{"id": name, "input": text, "expect": {"reply": text}} for name, text in (("a", "hi"), ("b", HOSTILE))]
    cases = [{**row, "source": "this test", "date": "2026-01-01"} for row in rows]
    (tmp_path / "cases.yaml").write_text(yaml.safe_dump({"name": "echo", "description": "Echo.", "cases": cases}))
    freeze(tmp_path / "cases.yaml", "first", SystemClock().now().date())
    return folder


@pytest.mark.slow
def test_reports_of_a_block(folder: Folder) -> None:
    """The Markdown report escapes text from the cases; the JUnit file has the failures."""
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
    # Unescaped, the text is unchanged.
    assert HOSTILE in re.sub(r"&#(\d+);", lambda match: chr(int(match[1])), summary)
    suite = Xml.parse(folder.path / "gate.xml").getroot()[0]
    failed = [test.get("name") for test in suite if test.find("failure") is not None]
    assert (suite.get("tests"), suite.get("failures"), failed) == ("3", "3", ["gate", "a", "b"])
    assert (folder.path / "gate.svg").read_text().startswith("<svg")
    passed = folder.handrail("eval", "gate", "echo", "--margin", "100", "--markdown", "summary.md")
    assert passed.code == 0
    assert "█" in (folder.path / "summary.md").read_text()


@pytest.mark.parametrize("written", ["-1", "101", "three", "", "3%%", "1/0"])
def test_invalid_margins(written: str) -> None:
    """A margin that is not a number of points from 0 to 100 is refused."""
    with pytest.raises(BadInput, match="--margin"):
        read_margin(written)


@pytest.mark.slow
def test_people_label_at_the_terminal(folder: Folder) -> None:
    """A person is shown request, answer and rubric but not the judge's reason, and continues where they stopped; a
    judge with too few labels stays untrusted."""
    assert folder.handrail("eval", "baseline", "judged", "--trials", "4").code == 0
    label = ("eval", "label", "judged", "--by", "ann", "--share", "0.5")
    first = folder.handrail(*label, stdin=b"maybe\nr\nq\n")
    assert first.code == 0, first.err
    assert "1 labelled by ann; continue later" in first.out
    assert "Is it polite?" in first.out
    assert "short" not in first.out
    rest = folder.handrail(*label, stdin=b"w\ns\nr\n")
    assert "3 labelled by ann; none left for you" in rest.out
    assert "0 labelled by ann" in folder.handrail(*label).out
    calibrated = folder.handrail("eval", "calibrate", "judged", "--json")
    assert calibrated.code == 1
    assert (calibrated.json["calibration"]["labels"], calibrated.json["calibration"]["failures"]) == (3, 1)
    assert "1 labelled failures, 15 are needed" in calibrated.json["distrusted"]
    printed = folder.handrail("eval", "calibrate", "judged")
    assert "Judge tone is not to be trusted" in printed.out
    gated = folder.handrail("eval", "gate", "judged")
    assert gated.code == 0
    assert "Judge tone is not trusted" in gated.out


@pytest.mark.slow
def test_labelling_without_a_terminal(folder: Folder) -> None:
    """When the input ends, the labels given so far are kept, and the error says that a terminal is needed."""
    assert folder.handrail("eval", "baseline", "judged", "--trials", "4").code == 0
    result = folder.handrail("eval", "label", "judged", "--by", "ann", "--share", "0.5", stdin=b"r\n")
    assert result.code == 2
    assert "run this command interactively" in result.err
    assert folder.handrail("eval", "calibrate", "judged", "--json").json["calibration"]["labels"] == 1


def test_the_example_workflow(folder: Folder) -> None:
    """Every command and option in the example workflow exists."""
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["gate"]["steps"]
    lines = [line.strip() for step in steps for line in step.get("run", "").splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("handrail ")]
    assert [command[2] for command in commands] == ["baseline", "gate"]
    for command in commands:
        printed = folder.handrail(*command[1:3], "--help", env={"COLUMNS": "200"})
        options = {word for word in command if word.startswith("--")}
        assert {option for option in options if option in printed.out} == options

"""`handrail demo` where no model can be had, and what a real terminal shows."""

import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pexpect
import pytest

from handrail.evals.eval_set.model import freeze
from handrail.kernel.clock import SystemClock
from tests.cli.terminal import PROGRAM, Folder, environment

NOWHERE = "http://127.0.0.1:9"
OFFLINE = {
    # Named, because an Ollama on the developer's machine would be taken otherwise.
    "HANDRAIL_MODEL": "builtin:qwen2.5-coder-0.5b",
    "HANDRAIL_CACHE": "cache",
    "HTTPS_PROXY": NOWHERE,
    "HTTP_PROXY": NOWHERE,
    "https_proxy": NOWHERE,
    "http_proxy": NOWHERE,
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "",
}

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_without_weights_the_demo_runs_by_the_rules(tmp_path: Path) -> None:
    """With no model and no network the demo says so, answers by its fallback, and exits with 0; its JSON stays pure."""
    folder = Folder(tmp_path, "")
    ended = folder.handrail("demo", "--messages", "4", "--json", env=OFFLINE)
    assert ended.code == 0
    assert "No model: " in ended.err
    assert "take the fallback path" in ended.err
    assert [set(row) for row in ended.json] == [{"case", "input", "type", "path", "outcome"}] * 4
    assert "fallback" in {row["path"] for row in ended.json}
    assert [run.requests for run in folder.runs()] == [0] * 4


def test_in_a_terminal_the_demo_draws_a_table_and_a_tree(tmp_path: Path) -> None:
    """In a terminal the table of runs, the tree of the slowest and the shares of the paths appear, in colour."""
    drawn = _drawn(Folder(tmp_path, ""), OFFLINE, "demo", "--messages", "2")
    assert all(title in drawn for title in ("message", "outcome", "path", "requests", "took", "cost"))
    assert "\x1b[33mfallback\x1b[0m" in drawn
    assert "└── " in drawn
    assert "Paths of 2 runs" in drawn


def test_in_a_terminal_an_eval_run_shows_its_progress(folder: Folder) -> None:
    """In a terminal an eval run draws a bar that counts the cases and those that are right."""
    freeze(folder.path / "cases.yaml", "first", SystemClock().now().date())
    drawn = _drawn(folder, {}, "eval", "run", "echo")
    assert "━━━━━━━━━━" in drawn
    assert "2/2" in drawn
    assert "1 right" in drawn
    assert "Score 50.0%" in drawn


def test_an_eval_run_that_is_stopped_keeps_its_trials(folder: Folder) -> None:
    """Ctrl-C ends an eval run with 130 and no traceback; its trials so far are kept, and the list says it stopped."""
    freeze(folder.path / "cases.yaml", "first", SystemClock().now().date())
    command = [str(PROGRAM), "eval", "run", "silent"]
    with subprocess.Popen(
        command, cwd=folder.path, env=environment({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as stopped:
        _until_there(folder.path / "waiting", stopped)
        stopped.send_signal(signal.SIGINT)
        _, err = stopped.communicate(timeout=30)
    assert (stopped.returncode, err.strip()) == (130, "")
    assert "1 of 2, stopped" in folder.handrail("eval", "list").out
    assert {run.fault for run in folder.runs()} == {None, "cancelled"}


def _drawn(folder: Folder, env: Mapping[str, str], *arguments: str) -> str:
    """All that a colour terminal of 140 columns gets from a command that ends well."""
    child: pexpect.spawn[str] = pexpect.spawn(
        str(PROGRAM),
        list(arguments),
        cwd=str(folder.path),
        env=environment({"TERM": "xterm-256color", **env}),
        dimensions=(50, 140),
        encoding="utf-8",
    )
    child.expect(pexpect.EOF, timeout=60)
    child.close()
    assert child.exitstatus == 0
    return child.before or ""


def _until_there(file: Path, process: "subprocess.Popen[str]") -> None:
    while not file.exists():
        assert process.poll() is None, process.communicate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)

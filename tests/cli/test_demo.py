"""`handrail demo` without a model, and the output in a real terminal."""

import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pexpect
import pytest

from handrail.evals.eval_set.lock import freeze
from handrail.kernel.clock import SystemClock
from tests.cli.terminal import PROGRAM, Folder, environment

UNREACHABLE = "http://127.0.0.1:9"
OFFLINE = {
    # Set explicitly: otherwise an Ollama on the developer's machine would be used.
    "HANDRAIL_MODEL": "builtin:qwen2.5-coder-0.5b",
    "HANDRAIL_CACHE": "cache",
    "HTTPS_PROXY": UNREACHABLE,
    "HTTP_PROXY": UNREACHABLE,
    "https_proxy": UNREACHABLE,
    "http_proxy": UNREACHABLE,
}

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_without_weights_the_demo_uses_the_fallback(tmp_path: Path) -> None:
    """Without model and network the demo says so, uses its fallback and exits with 0; its output is JSON only."""
    folder = Folder(tmp_path, "")
    result = folder.handrail("demo", "--messages", "4", "--json", env=OFFLINE)
    assert result.code == 0
    assert "No model: " in result.err
    assert "take the fallback path" in result.err
    assert [set(row) for row in result.json] == [{"case", "input", "type", "path", "outcome"}] * 4
    assert "fallback" in {row["path"] for row in result.json}
    assert [run.requests for run in folder.runs()] == [0] * 4


def test_in_a_terminal_the_demo_prints_a_table_and_a_tree(tmp_path: Path) -> None:
    """A terminal gets the table of runs, the tree of the slowest and the shares of the paths, in colour."""
    printed = _run_in_terminal(Folder(tmp_path, ""), OFFLINE, "demo", "--messages", "2")
    assert all(title in printed for title in ("message", "outcome", "path", "requests", "duration", "cost"))
    assert "\x1b[33mfallback\x1b[0m" in printed
    assert "└── " in printed
    assert "Paths of 2 runs" in printed


def test_in_a_terminal_an_eval_run_shows_its_progress(folder: Folder) -> None:
    """In a terminal an eval run shows a progress bar with the number of cases and of those that passed."""
    freeze(folder.path / "cases.yaml", "first", SystemClock().now().date())
    printed = _run_in_terminal(folder, {}, "eval", "run", "echo")
    assert "━━━━━━━━━━" in printed
    assert "2/2" in printed
    assert "1 passed" in printed
    assert "Score 50.0%" in printed


def test_an_interrupted_eval_run_keeps_its_trials(folder: Folder) -> None:
    """Ctrl-C ends an eval run with 130 and no traceback; its trials are kept, and it is listed as stopped."""
    freeze(folder.path / "cases.yaml", "first", SystemClock().now().date())
    command = [str(PROGRAM), "eval", "run", "silent"]
    with subprocess.Popen(
        command, cwd=folder.path, env=environment({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as stopped:
        _wait_for(folder.path / "waiting", stopped)
        stopped.send_signal(signal.SIGINT)
        _, err = stopped.communicate(timeout=30)
    assert (stopped.returncode, err.strip()) == (130, "")
    assert "1 of 2, stopped" in folder.handrail("eval", "list").out
    assert {run.fault for run in folder.runs()} == {None, "cancelled"}


def _run_in_terminal(folder: Folder, env: Mapping[str, str], *arguments: str) -> str:
    """The output of a command in a colour terminal of 140 columns; the command must succeed."""
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


def _wait_for(file: Path, process: "subprocess.Popen[str]") -> None:
    while not file.exists():
        assert process.poll() is None, process.communicate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)

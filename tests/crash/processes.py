"""Runs the programs in `programs/` as separate processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FAST_FOLDER = next((folder for folder in ("/dev/shm",) if os.access(folder, os.W_OK)), None)
"""Where temporary files are kept in memory, if there is such a folder; a process that is killed loses none of them."""


@contextmanager
def running(program: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Starts a program and kills it at the end if it still runs. It shares the test's standard error."""
    command = [sys.executable, str(Path(__file__).parent / "programs" / f"{program}.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    if FAST_FOLDER is not None:
        environment["TMPDIR"] = FAST_FOLDER
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: "subprocess.Popen[str]") -> str:
    """Waits for the next line that the process prints; empty at the end of its output."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def write_line(process: "subprocess.Popen[str]", line: str) -> None:
    """Writes a line to the standard input of the process."""
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()

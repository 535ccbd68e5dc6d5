"""The installed `handrail` command, in a directory with a user's own agents."""

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handrail.kernel.clock import SystemClock
from handrail.kernel.db.database import Database
from handrail.runs.store.queries import RunView, list_runs

PROGRAM = Path(sysconfig.get_path("scripts")) / "handrail"
TOML = """\
[agents]
echo = "shop:echo"
silent = "shop:silent"
down = "shop:down"
wrong = "shop:wrong"
modelless = "shop:modelless"
bare = "shop:bare"
missing = "shop:no_such"
payer = "shop:payer"

[roles]
lead = ["mia"]
"""
CASES = """\
name: echo
description: Repeats its input.
cases:
  - {id: hello, input: hello, expect: {reply: "You said: hello"}, source: written for this test, date: 2026-01-01}
  - {id: silence, input: "hush", expect: {reply: ""}, source: written for this test, date: 2026-01-01}
"""
_DEVELOPER_PREFIXES = ("HANDRAIL_", "OTEL_", "PYTHONIOENCODING", "COLUMNS", "FORCE_COLOR", "NO_COLOR")


@dataclass(frozen=True)
class CommandResult:
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Folder:
    """A working directory with agents, an eval set and handrail.toml."""

    def __init__(self, path: Path, toml: str = TOML) -> None:
        self.path = path
        (path / "handrail.toml").write_text(toml)
        (path / "cases.yaml").write_text(CASES)
        shutil.copy(Path(__file__).parent / "shop.py", path)

    def handrail(self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> CommandResult:
        """Runs `handrail` and waits for it; `env` overrides the shell's environment."""
        process = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.path,
            env=environment(env or {}),
            input=stdin,
            capture_output=True,
            timeout=60,
        )
        return CommandResult(process.returncode, process.stdout.decode(), process.stderr.decode())

    def runs(self) -> Sequence[RunView]:
        """The runs in the directory's store; none if there is no store."""
        if not (self.path / "handrail.db").exists():
            return []
        database = Database.open("handrail.db", self.path)
        now = SystemClock().now()
        try:
            return database.read_now(list_runs(now, tenant=None, agent=None, limit=100, before=None))
        finally:
            database.close()


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """The shell's environment without variables that affect the program, updated with `env`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_DEVELOPER_PREFIXES) and not name.endswith(("_API_KEY", "_AUTH_TOKEN"))
    }
    return {**kept, **env}

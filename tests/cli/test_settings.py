"""What `handrail` prints when its settings or its store are wrong, and its help."""

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
def test_an_invalid_file_is_named_with_the_position(tmp_path: Path, toml: str, problems: list[str]) -> None:
    """A malformed handrail.toml, or an unknown key in it, ends in exit code 2 and is named with its position."""
    result = Folder(tmp_path, toml).handrail("runs", "list")
    assert (result.code, result.out) == (2, "")
    assert all(problem in result.err for problem in problems)
    assert not (tmp_path / "handrail.db").exists()


def test_a_store_from_a_later_version_is_left_alone(folder: Folder) -> None:
    """A newer store ends in exit code 2 and says to upgrade."""
    Database.open("handrail.db", folder.path).close()
    with sqlite3.connect(folder.path / "handrail.db") as store:
        store.execute("UPDATE alembic_version SET version_num = '9999'")
    store.close()
    result = folder.handrail("runs", "list")
    assert result.code == 2
    assert "upgrade Handrail" in result.err


def test_a_store_that_is_not_a_database_is_left_alone(folder: Folder) -> None:
    """A file that is not a database ends in exit code 2, and is not changed."""
    (folder.path / "notes.txt").write_text("Buy milk.\n" * 500)
    result = folder.handrail("run", "echo", "hello", env={"HANDRAIL_STORE": "notes.txt"})
    assert result.code == 2
    assert "the file is not a database" in result.err
    assert (folder.path / "notes.txt").read_text() == "Buy milk.\n" * 500


def test_a_store_in_a_missing_directory(tmp_path: Path) -> None:
    """A missing directory is reported, and is not created."""
    result = Folder(tmp_path, f'store = "data/handrail.db"\n{TOML}').handrail("runs", "list")
    assert result.code == 2
    assert "does its directory exist" in result.err
    assert not (tmp_path / "data").exists()


def test_every_command_has_help() -> None:
    """--help works for each command, describes it and has an example."""
    runner, commands = CliRunner(), dict(_commands())
    assert {"run", "demo", "runs list", "runs show", "traces show", "eval run", "eval freeze", "db upgrade"} <= set(
        commands
    )
    for name, help_text in commands.items():
        printed = runner.invoke(app, [*name.split(), "--help"])
        assert printed.exit_code == 0, name
        assert len(printed.output) > len(name) + 40, name
        assert "Example: `" in help_text or "Examples: `" in help_text, name


def _commands() -> list[tuple[str, str]]:
    commands: list[tuple[str, str]] = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        subcommands = getattr(command, "commands", {"": command})
        commands += [(f"{name} {sub}".strip(), subcommands[sub].help or "") for sub in subcommands]
    return commands

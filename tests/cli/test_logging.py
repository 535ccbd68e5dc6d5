"""The logs of `handrail worker` and `handrail serve` on standard error, as readable lines and as JSON."""

import json
import logging
import math
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from handrail.cli.logging_setup import JsonFormatter, TextFormatter
from handrail.kernel.db.database import Database
from tests.cli.terminal import PROGRAM, TOML, Folder, environment

NASTY = "line\nbreak \x1b[31mred \u202eturned"
FORGED = "2026-01-01 00:00:00 ERROR   forged: line"


@pytest.fixture
def failing_job(folder: Folder) -> str:
    """The id of a run whose job fails because its agent is no longer configured."""
    waiting = folder.handrail("run", "payer", "I was charged twice", "--tenant", "acme", "--json").json
    [approval] = waiting["outcome"]["approvals"]
    assert folder.handrail("approvals", "approve", approval["approval_id"], "--by", "mia").code == 0
    (folder.path / "handrail.toml").write_text(TOML.replace('payer = "shop:payer"\n', ""))
    return str(approval["run_id"])


def test_readable_lines(folder: Folder, failing_job: str) -> None:
    """A failed job is one line: time, level, logger, message, and its run. Standard output has the results only."""
    result = folder.handrail("worker", "--once")
    assert result.code == 1
    [line] = result.err.splitlines()
    time, logger = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", r"handrail\.worker"
    fields = f"run_id={failing_job} tenant=acme error_type=NotFound"
    assert re.fullmatch(rf"{time} WARNING {logger}: job failed .* {fields}", line)
    assert result.out.startswith("resume:")
    assert "payer" in result.out


def test_json_lines(folder: Folder, failing_job: str) -> None:
    """With --log-format json each line is one object, with the same values as fields of their own."""
    result = folder.handrail("worker", "--once", "--log-format", "json", "--json")
    [record] = [json.loads(line) for line in result.err.splitlines()]
    assert record["time"].endswith("+00:00")
    assert (record["level"], record["logger"], record["run_id"]) == ("warning", "handrail.worker", failing_job)
    assert record["message"].startswith("job failed")
    assert [job["kind"] for job in result.json] == ["resume_run"]


def test_the_server_logs_json_only(folder: Folder, failing_job: str) -> None:
    """The server's own start, its worker's failures and uvicorn's warnings are all JSON objects on standard error."""
    command = [str(PROGRAM), "serve", "--port", "0", "--log-format", "json"]
    with subprocess.Popen(command, cwd=folder.path, env=environment({}), stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        records = [json.loads(server.stderr.readline()) for _ in range(2)]
        [port] = [int(match[1]) for record in records if (match := re.search(r":(\d+)", record["message"]))]
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"this is not HTTP\r\n\r\n")
            client.recv(1_000)
        records.append(json.loads(server.stderr.readline()))
        server.send_signal(2)
        rest = server.stderr.read()
        assert server.wait(30) == 0
    assert rest == ""
    assert {record["logger"] for record in records} == {"handrail.cli.serve", "handrail.worker", "uvicorn.error"}
    assert {record.get("run_id") for record in records} == {None, failing_job}


def test_records_are_sanitized() -> None:
    """Line breaks and escape sequences in a record can neither forge a line nor reach the terminal."""
    try:
        raise ValueError(f"{NASTY}\n{FORGED}")
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, NASTY, None, (ValueError, error, error.__traceback__))
    record.run_id = f"{NASTY}\n{FORGED}"
    lines, document = TextFormatter().format(record), JsonFormatter().format(record)
    assert not set("\x1b\u202e") & set(lines + document)
    assert len(document.splitlines()) == 1
    assert json.loads(document)["message"] == NASTY
    first, *traceback = lines.splitlines()
    assert "run_id=line break" in first
    assert traceback
    assert all(line.startswith("    ") for line in traceback)


class _Unshowable:
    def __repr__(self) -> str:
        raise ValueError("no text")


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()))
    | st.sampled_from(["\ud800", "a\nb", Path("x"), object(), ValueError("x")])
    | st.builds(_Unshowable)
    | st.just(5_000).map(lambda digits: 10**digits)
    | st.frozensets(st.integers() | st.binary()),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.floats() | st.text() | st.tuples(st.text(), st.floats()), inner)
    ),
)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@given(
    st.dictionaries(st.text(st.characters(exclude_categories=())) | st.tuples(st.text()), _VALUES, max_size=5), _VALUES
)
def test_every_record_is_one_json_object(extra: dict[Any, Any], message: Any) -> None:
    """Whatever a record contains, its line is one JSON object by the standard, and its text one line."""
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": message})
    for name, value in extra.items():
        record.__dict__.setdefault(name, value)
    document = JsonFormatter().format(record)
    assert len(document.splitlines()) == 1
    fields = json.loads(document, parse_constant=_no_constant)
    assert (fields["level"], fields["logger"]) == ("info", "x")
    assert TextFormatter().format(record).count("\n") == 0


@pytest.mark.parametrize(
    "value",
    [math.inf, {("a", 1): 2}, [_Unshowable()], {1: {2: _Unshowable()}}, {"\ud800": 1}, "x" * 10_000, ["y"] * 9_999],
)
def test_odd_values(value: Any) -> None:
    """A value that JSON has no form for is shown as text, and a long one is cut."""
    record = logging.makeLogRecord({"msg": "event", "value": value, "run_id": "run_1"})
    fields = json.loads(JsonFormatter().format(record), parse_constant=_no_constant)
    assert (fields["message"], fields["run_id"]) == ("event", "run_1")
    assert len(str(fields["value"])) <= 2_000


def test_a_value_that_contains_itself() -> None:
    """A cycle ends in text."""
    cycle: list[Any] = []
    cycle.append(cycle)
    assert (
        json.loads(JsonFormatter().format(logging.makeLogRecord({"msg": "event", "value": cycle})))["value"]
        == "[[...]]"
    )


def test_arguments_that_do_not_fit_the_message() -> None:
    """The message is logged as it is."""
    record = logging.makeLogRecord({"msg": "%d of %d", "args": ("x",)})
    assert json.loads(JsonFormatter().format(record))["message"] == "%d of %d"
    assert "%d of %d" in TextFormatter().format(record)


def test_the_stack_is_part_of_the_record() -> None:
    """`stack_info` is shown in both formats."""
    record = logging.makeLogRecord({"msg": "event", "stack_info": "Stack (most recent call last):\n  File x"})
    assert json.loads(JsonFormatter().format(record))["stack"].startswith("Stack")
    assert TextFormatter().format(record).splitlines()[1:] == ["    Stack (most recent call last):", "      File x"]


def test_warnings_are_log_records() -> None:
    """Python's warnings and failed tasks are JSON lines too, and quote no values."""
    program = (
        "import asyncio, warnings\n"
        "from pydantic import BaseModel\n"
        "from handrail.cli.logging_setup import configure_logging\n"
        "class Model(BaseModel):\n"
        "    number: int\n"
        "async def fail():\n"
        "    raise ValueError('a ' + 'secret')\n"
        "async def main():\n"
        "    asyncio.ensure_future(fail())\n"
        "    await asyncio.sleep(0)\n"
        "configure_logging('json')\n"
        "warnings.warn('old name', DeprecationWarning)\n"
        "Model.model_construct(number='a secret, input_type=str').model_dump()\n"
        "asyncio.run(main())\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    records = [json.loads(line) for line in result.stderr.splitlines()]
    assert [record["logger"] for record in records] == ["py.warnings", "py.warnings", "asyncio"]
    assert "old name" in records[0]["message"]
    assert "ValueError" in records[2]["traceback"]
    assert "a secret" not in result.stderr


class _Form(BaseModel):
    password: int


def _insert(conn: Connection, value: str) -> None:
    conn.execute(text("INSERT INTO prompts VALUES (:hash, 'x')"), {"hash": value})


def _raise_chained(message: str) -> NoReturn:
    try:
        raise KeyError(message)
    except KeyError as error:
        raise RuntimeError(message) from error


def _record_of(error: BaseException) -> logging.LogRecord:
    return logging.LogRecord("x", logging.ERROR, "x.py", 1, "failed", None, (type(error), error, error.__traceback__))


def test_a_traceback_shows_no_values(tmp_path: Path) -> None:
    """A violated constraint and a failed validation are logged by type, code and place, without their values."""
    secret = "hunter" + "2"
    database = Database.open("handrail.db", tmp_path)
    insert = partial(_insert, value=secret)
    database.write_now(insert)
    with pytest.raises(IntegrityError) as violation:
        database.write_now(insert)
    database.close()
    assert secret not in str(violation.value)
    with pytest.raises(ValidationError) as invalid:
        _Form.model_validate({"password": secret})
    with pytest.raises(RuntimeError) as chained:
        _raise_chained(secret)
    with pytest.raises(ExceptionGroup) as group:
        raise ExceptionGroup(secret, [ValueError(secret), violation.value, invalid.value])
    for raised, shown in (
        (violation, "(SQLITE_CONSTRAINT_PRIMARYKEY)"),
        (invalid, "ValidationError: password int_parsing"),
        (chained, "KeyError\nThe above error was the direct cause"),
        (group, "  | ValueError"),
    ):
        record = _record_of(raised.value)
        documents = JsonFormatter().format(record), TextFormatter().format(record)
        assert shown in json.loads(documents[0])["traceback"]
        assert secret not in "".join(documents)


def test_version(tmp_path: Path) -> None:
    """`handrail --version` prints the version and needs no settings."""
    result = Folder(tmp_path, "not toml").handrail("--version")
    assert (result.code, result.err) == (0, "")
    assert re.fullmatch(r"handrail \d+\.\d+\.\d+\S*\n", result.out)

"""`handrail run`: what it accepts, what it prints, and what it stores."""

import json

import pytest

from tests.cli.terminal import Folder

NASTY = "[red]bold[/] [/] :smile: \x1b]0;title\x07 \x1b[31mred \x9b1m \u202eturned"


def test_an_answer_is_printed(folder: Folder) -> None:
    """An answered run prints outcome, path, message and the command that shows it, and exits with 0."""
    result = folder.handrail("run", "echo", "Where is my parcel?", "--user", "u-1")
    assert (result.code, result.err) == (0, "")
    head, message, foot = result.out.splitlines()
    assert head.split() == ["Answered", "happy"]
    assert message == "You said: Where is my parcel?"
    [run] = folder.runs()
    assert f"`handrail runs show {run.run_id}`" in foot
    assert (run.user, run.status) == ("u-1", "answered")


def test_a_failed_run_exits_with_1_and_its_json_says_why(folder: Folder) -> None:
    """A run whose model is down is Failed: exit code 1, a typed fault, a message for the user, and a stored run."""
    result = folder.handrail("run", "down", "hello", "--json")
    assert result.code == 1
    assert (result.json["type"], result.json["path"]) == ("failed", "failed")
    assert result.json["outcome"]["fault"]["code"] == "model_unavailable"
    assert "try again" in result.json["outcome"]["message"]
    [run] = folder.runs()
    assert result.json["outcome"]["facts"]["run_id"] == run.run_id


def test_a_dash_reads_standard_input(folder: Folder) -> None:
    """`-` takes the message from standard input, as UTF-8 whatever the locale, and its JSON holds the answer."""
    result = folder.handrail("run", "echo", "-", "--json", stdin="Wo ist mein Päckchen?".encode(), env={"LC_ALL": "C"})
    assert result.code == 0
    assert result.json["outcome"]["output"] == "You said: Wo ist mein Päckchen?"


@pytest.mark.parametrize(
    ("stdin", "problem"),
    [
        (b"caf\xe9", "standard input: not valid UTF-8 at byte 3"),
        (b" \n", "input: it is empty; pass the user's message"),
        (b"x" * 10_000_000, "input: 10,000,000 bytes of text, the limit is 1,000,000"),
    ],
    ids=["latin-1", "blank", "10 MB"],
)
def test_an_invalid_message_is_refused_and_nothing_is_stored(shared_folder: Folder, stdin: bytes, problem: str) -> None:
    """Text that is not UTF-8, blank or 10 MB long ends with exit code 2 and one line, and no run is stored."""
    result = shared_folder.handrail("run", "echo", "-", stdin=stdin)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"Error: {problem}")
    assert len(result.err.splitlines()) == 1
    assert shared_folder.runs() == []


def test_an_argument_that_is_not_utf8_is_refused(folder: Folder) -> None:
    """An argument that is not UTF-8 is named and refused before anything is opened."""
    result = folder.handrail("traces", "show", "caf\udce9")
    assert (result.code, result.err) == (2, "Error: argument 'caf\\udce9' is not valid UTF-8; convert it first\n")
    assert not (folder.path / "handrail.db").exists()


@pytest.mark.parametrize(
    ("agent", "code", "problem"),
    [
        ("ecko", "not_found", "there is no agent 'ecko'; did you mean echo?"),
        ("missing", "bad_settings", "the module has no attribute 'no_such'"),
        ("bare", "bad_settings", "is a Agent, not what govern() returns"),
    ],
)
def test_an_unusable_agent_is_a_typed_error(shared_folder: Folder, agent: str, code: str, problem: str) -> None:
    """With --json an error is one JSON document on standard error, with a stable code, and exit code 2."""
    result = shared_folder.handrail("run", agent, "hello", "--json")
    assert (result.code, result.out) == (2, "")
    error = json.loads(result.err)["error"]
    assert error["code"] == code
    assert problem in error["message"]


def test_an_unknown_model_is_refused_with_the_nearest(shared_folder: Folder) -> None:
    """A misspelt model name ends in exit code 2 and suggests the right one."""
    result = shared_folder.handrail("run", "modelless", "hello", env={"HANDRAIL_MODEL": "bultin:qwen2.5-coder-0.5b"})
    assert result.code == 2
    assert "bultin" in result.err
    assert "did you mean builtin" in result.err


def test_a_bug_in_an_agent_is_shown_with_its_traceback(shared_folder: Folder) -> None:
    """A programming error is printed with its traceback, and exits with 2: 1 would be a negative result."""
    result = shared_folder.handrail("run", "wrong", "hello")
    assert result.code == 2
    assert "in raise_bug" in result.err
    assert result.err.splitlines()[-1] == "Error: TypeError: a bug in the agent"


def test_text_from_users_is_sanitized(shared_folder: Folder) -> None:
    """Markup, emoji codes and escape sequences in a user's text are printed as text, also when the run is shown."""
    result = shared_folder.handrail("run", "echo", NASTY)
    run_id = shared_folder.runs()[0].run_id
    shown = shared_folder.handrail("runs", "show", run_id, env={"FORCE_COLOR": "1"})
    assert "└── " in shown.out
    for out in (result.out, shown.out):
        assert "[red]bold[/] [/] :smile: ␛]0;title␇ ␛[31mred \ufffd1m [U+202E]turned" in out
        assert not set("\x07\x9b\u202e") & set(out)
        assert "\x1b]" not in out
        assert "\x1b[31mred" not in out


def test_the_json_of_a_text_keeps_every_character(shared_folder: Folder) -> None:
    """Characters that a terminal would obey are escaped in JSON, and none is lost."""
    result = shared_folder.handrail("run", "echo", NASTY, "--json")
    assert result.json["outcome"]["output"] == f"You said: {NASTY}"
    assert not set("\x07\x1b\x9b\u202e") & set(result.out)


def test_a_terminal_that_lacks_a_letter(shared_folder: Folder) -> None:
    """On an ASCII terminal other characters are printed escaped, and the command does not fail."""
    result = shared_folder.handrail("run", "echo", "Päckchen", env={"PYTHONIOENCODING": "ascii"})
    assert (result.code, result.err) == (0, "")
    assert "You said: P\\xe4ckchen" in result.out

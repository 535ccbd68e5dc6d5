"""`handrail run`: what goes in, what comes out, and what is stored of it."""

import json

import pytest

from tests.cli.terminal import Folder

NASTY = "[red]bold[/] [/] :smile: \x1b]0;title\x07 \x1b[31mred \x9b1m \u202eturned"


def test_an_answer_is_printed_with_its_path_and_the_way_on(folder: Folder) -> None:
    """An answered run prints outcome, path, message and the command that shows it, and exits with 0."""
    ended = folder.handrail("run", "echo", "Where is my parcel?", "--user", "u-1")
    assert (ended.code, ended.err) == (0, "")
    head, message, foot = ended.out.splitlines()
    assert head.split() == ["Answered", "happy"]
    assert message == "You said: Where is my parcel?"
    [run] = folder.runs()
    assert f"`handrail runs show {run.run_id}`" in foot
    assert (run.user, run.status) == ("u-1", "answered")


def test_a_failed_run_exits_with_1_and_its_json_says_why(folder: Folder) -> None:
    """A run whose model is down is Failed: exit code 1, a typed fault, a message fit for the user, and a stored run."""
    ended = folder.handrail("run", "down", "hello", "--json")
    assert ended.code == 1
    assert (ended.json["type"], ended.json["path"]) == ("failed", "failed")
    assert ended.json["outcome"]["fault"]["code"] == "model_unavailable"
    assert "try again" in ended.json["outcome"]["message"]
    [run] = folder.runs()
    assert ended.json["outcome"]["facts"]["run_id"] == run.run_id


def test_a_dash_reads_standard_input(folder: Folder) -> None:
    """`-` takes the message from standard input, as UTF-8 whatever the locale, and its JSON holds the answer."""
    ended = folder.handrail("run", "echo", "-", "--json", stdin="Wo ist mein Päckchen?".encode(), env={"LC_ALL": "C"})
    assert ended.code == 0
    assert ended.json["outcome"]["output"] == "You said: Wo ist mein Päckchen?"


@pytest.mark.parametrize(
    ("stdin", "problem"),
    [
        (b"caf\xe9", "standard input: not valid UTF-8 at byte 3"),
        (b" \n", "input: it is empty; pass the user's message"),
        (b"x" * 10_000_000, "input: 10,000,000 bytes of text, the limit is 1,000,000"),
    ],
    ids=["latin-1", "blank", "10 MB"],
)
def test_a_text_that_is_none_is_refused_and_nothing_is_stored(lasting: Folder, stdin: bytes, problem: str) -> None:
    """Text that is not UTF-8, blank or 10 MB long ends with exit code 2, one line, no run, and a sound store."""
    ended = lasting.handrail("run", "echo", "-", stdin=stdin)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"Error: {problem}")
    assert len(ended.err.splitlines()) == 1
    assert lasting.runs() == []


def test_an_argument_that_is_not_utf8_is_refused(folder: Folder) -> None:
    """Bytes that are no text are named and refused before anything is opened."""
    ended = folder.handrail("traces", "show", "caf\udce9")
    assert (ended.code, ended.err) == (2, "Error: argument 'caf\\udce9' is not valid UTF-8; convert it first\n")
    assert not (folder.path / "handrail.db").exists()


@pytest.mark.parametrize(
    ("agent", "code", "problem"),
    [
        ("ecko", "not_found", "there is no agent 'ecko'; did you mean echo?"),
        ("missing", "bad_settings", "the module has no attribute 'no_such'"),
        ("bare", "bad_settings", "is a Agent, not what govern() returns"),
    ],
)
def test_an_agent_that_is_none_is_an_error_of_its_own_kind(
    lasting: Folder, agent: str, code: str, problem: str
) -> None:
    """With --json an error is one JSON document on standard error, with a stable code, and exit code 2."""
    ended = lasting.handrail("run", agent, "hello", "--json")
    assert (ended.code, ended.out) == (2, "")
    error = json.loads(ended.err)["error"]
    assert error["code"] == code
    assert problem in error["message"]


def test_a_model_nobody_knows_is_refused_with_the_nearest(lasting: Folder) -> None:
    """A model's misspelt name ends in exit code 2 and offers the right one."""
    ended = lasting.handrail("run", "modelless", "hello", env={"HANDRAIL_MODEL": "bultin:qwen2.5-coder-0.5b"})
    assert ended.code == 2
    assert "bultin" in ended.err
    assert "did you mean builtin" in ended.err


def test_a_bug_in_an_agent_is_shown_whole_and_is_no_verdict(lasting: Folder) -> None:
    """A programming error keeps its traceback, and its exit code is 2: 1 would say that a verdict is no."""
    ended = lasting.handrail("run", "wrong", "hello")
    assert ended.code == 2
    assert "in be_wrong" in ended.err
    assert ended.err.splitlines()[-1] == "Error: TypeError: a bug in the agent"


def test_text_from_outside_is_printed_and_not_obeyed(lasting: Folder) -> None:
    """Markup, emoji codes and escape sequences in a user's text come out as text, here and in the story of the run."""
    ended = lasting.handrail("run", "echo", NASTY)
    run_id = lasting.runs()[0].run_id
    shown = lasting.handrail("runs", "show", run_id, env={"FORCE_COLOR": "1"})
    assert "└── " in shown.out
    for out in (ended.out, shown.out):
        assert "[red]bold[/] [/] :smile: ␛]0;title␇ ␛[31mred \ufffd1m \ufffdturned" in out
        assert not set("\x07\x9b\u202e") & set(out)
        assert "\x1b]" not in out
        assert "\x1b[31mred" not in out


def test_the_json_of_a_text_keeps_every_character(lasting: Folder) -> None:
    """What a terminal would obey is escaped in JSON, and comes back whole."""
    ended = lasting.handrail("run", "echo", NASTY, "--json")
    assert ended.json["outcome"]["output"] == f"You said: {NASTY}"
    assert not set("\x07\x1b\x9b\u202e") & set(ended.out)


def test_an_output_that_cannot_show_a_letter_shows_its_code(lasting: Folder) -> None:
    """A terminal that knows ASCII only gets the rest escaped, and the run is not lost to it."""
    ended = lasting.handrail("run", "echo", "Päckchen", env={"PYTHONIOENCODING": "ascii"})
    assert (ended.code, ended.err) == (0, "")
    assert "You said: P\\xe4ckchen" in ended.out

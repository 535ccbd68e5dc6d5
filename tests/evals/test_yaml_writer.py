"""A case at the end of a set's YAML: what is read back, what stays, and what is refused."""

import datetime as dt
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from tests.evals.test_dataset import CASES, slugs, write

from handrail.evals.eval_set.file_lock import changing
from handrail.evals.eval_set.model import Case, check_frozen, freeze, history, load_set, lock_path
from handrail.evals.eval_set.yaml_writer import append_case
from handrail.kernel.errors import BadInput

SUPPORT = Path(__file__).parents[2] / "src" / "handrail" / "examples" / "support_triage" / "evals"
TODAY = dt.date(2026, 11, 25)

# Every character that UTF-8 can hold, and more often those that YAML takes for something.
texts = st.text(
    st.characters(codec="utf-8") | st.sampled_from(" \t\n\r\x00\x85\u2028\u2029\ufeff\u202e#:-|>'\"\\%&*!?{}[],`@~"),
    min_size=1,
    max_size=40,
)
lines = texts.map(lambda text: " ".join(text.split())).filter(bool)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts | st.sampled_from(["yes", "null", "1042", "2026-01-01", "1e3", "~"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
cases = st.builds(
    Case,
    id=slugs.map(lambda slug: f"run-{slug}"),
    input=texts,
    input_file=st.none(),
    expect=st.dictionaries(texts, values, min_size=1, max_size=3),
    source=lines,
    date=st.dates(),
    tags=st.lists(lines, max_size=2).map(tuple),
)


def case(text: str = "Where is it?", case_id: str = "run-1", **changed: object) -> Case:
    fields = {"expect": {"category": "delivery"}, "source": "this test", "date": TODAY, **changed}
    return Case.model_validate({"id": case_id, "input": text, **fields})


def appended(path: Path, new: Case) -> str:
    """What was added to the file, which still begins with what it held."""
    before = path.read_bytes()
    append_case(path, new)
    after = path.read_bytes()
    assert after.startswith(before)
    return after[len(before) :].decode()


@given(cases)
@example(case("  indented\n\nfirst"))
@example(case("\n\n  blank lines first\n"))
@example(case("\tfrom a tab\n\t\n   \n"))
@example(case("kept\n\n\n"))
@example(case(" \n "))
@example(case("--- no document\n...\n# no comment"))
@example(case("carriage\r\nreturn\r"))
@example(case("👩‍👩‍👧 ‏שלום‏"))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, new: Case) -> None:
    """Whatever its texts and values are, a case reads back as it was, and the file keeps every byte it had."""
    path = write(tmp_path_factory.mktemp("set"), CASES)
    old = load_set(path).cases
    appended(path, new)
    assert load_set(path).cases == (*old, new)


@given(st.lists(cases, min_size=2, max_size=3, unique_by=lambda each: each.id))
def test_one_after_another(tmp_path_factory: pytest.TempPathFactory, several: list[Case]) -> None:
    """A case can follow a case that was added, whatever the first one ends with."""
    path = write(tmp_path_factory.mktemp("set"), CASES)
    for each in several:
        appended(path, each)
    assert load_set(path).cases[2:] == tuple(several)


@given(texts)
def test_both_readers_agree(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """The reader in Python, used where the one in C is missing, reads the same text."""
    path = write(tmp_path_factory.mktemp("set"), CASES)
    appended(path, case(text))
    assert yaml.load(path.read_bytes(), yaml.SafeLoader)["cases"][2]["input"] == text


def test_the_layout(tmp_path: Path) -> None:
    """A message of several lines stands as a block, values on one line, as a person would write them."""
    new = case(
        "Hello,\n\nwhere is it?",
        expect={"category": "delivery", "order": "1042", "refund": True, "note": None},
        source="production run run_1, marked wrong by ann on 2026-11-25",
        tags=["production"],
    )
    assert appended(write(tmp_path, CASES), new) == (
        "  - id: run-1\n"
        "    input: |-\n"
        "      Hello,\n"
        "\n"
        "      where is it?\n"
        '    expect: {category: delivery, order: "1042", refund: true, note: null}\n'
        '    source: "production run run_1, marked wrong by ann on 2026-11-25"\n'
        "    date: 2026-11-25\n"
        "    tags: [production]\n"
    )


def test_what_would_hide_is_escaped(tmp_path: Path) -> None:
    """Marks that turn the direction of text, and control characters, stand as escapes that a reviewer sees."""
    written = appended(write(tmp_path, CASES), case("pay \u202eeuro 9\x07"))
    assert '"pay \\u202eeuro 9\\x07"' in written


def test_the_real_set(tmp_path: Path) -> None:
    """The support-triage set takes a case, set off by a blank line as its others are, and keeps its comments."""
    folder = tmp_path / "evals"
    shutil.copytree(SUPPORT, folder)
    old = load_set(folder / "cases.yaml")
    written = appended(folder / "cases.yaml", case("Where is 1042?\n"))
    assert written.startswith("\n  - id: run-1\n    input: |\n      Where is 1042?\n")
    assert load_set(folder / "cases.yaml").cases == (*old.cases, case("Where is 1042?\n"))
    assert sorted(os.listdir(folder)) == sorted(os.listdir(SUPPORT))


ONE = "name: a\ndescription: b\ncases:\n\n- id: x\n  expect: {a: 1}\n  source: s\n  date: 2026-01-01\n"


@pytest.mark.parametrize(
    "text",
    [
        CASES.rstrip("\n"),
        CASES.replace("\n", "\r\n"),
        "\ufeff" + CASES,
        CASES.replace("\n  ", "\n"),
        CASES + "# the end\n",
        CASES + "\n\n",
        CASES.replace("  - id: thanks", "\n  - id: thanks"),
        "name: a\ndescription: b\ncases:\n- {id: x, input: y, expect: {a: 1}, source: s, date: 2026-01-01}\n",
        ONE + "  input: |+\n    y\n",
        ONE + "  input: y\n  tags: []\n",
    ],
    ids=[
        "no last line break",
        "crlf",
        "bom",
        "not indented",
        "comment",
        "blank lines",
        "set off",
        "flow",
        "open block",
        "empty list",
    ],
)
def test_any_layout(tmp_path: Path, text: str) -> None:
    """However its author laid a set out, a case is added and the old ones stay as they were."""
    path = write(tmp_path, text)
    old = load_set(path).cases
    appended(path, case("one\n\ntwo\n"))
    assert load_set(path).cases == (*old, case("one\n\ntwo\n"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cases:\n" + CASES.partition("cases:\n")[2] + "name: a\ndescription: b\n", "move cases there"),
        (
            "name: a\ndescription: b\ncases: [{id: x, input: y, expect: {a: 1}, source: s, date: 2026-01-01}]\n",
            "cases.yaml:3: cases: a case can be added to a block list only",
        ),
        (CASES + "...\n", "write it by hand"),
        (CASES.replace("name: parcels\n", ""), "name: this field is required"),
    ],
    ids=["not last", "flow list", "ended", "no set"],
)
def test_what_cannot_grow(tmp_path: Path, text: str, says: str) -> None:
    """A set to which nothing can be added safely is refused, and its file and folder are as they were."""
    path = write(tmp_path, text)
    with pytest.raises(BadInput) as caught:
        append_case(path, case())
    assert says in str(caught.value)
    assert path.read_text() == text
    assert os.listdir(tmp_path) == ["cases.yaml"]


def test_an_id_that_is_taken(tmp_path: Path) -> None:
    """A case whose id is taken is refused by the line that has it, and the file stays."""
    path = write(tmp_path, CASES)
    with pytest.raises(BadInput, match=r"cases\.yaml:\d+: case 'late', id: the id is taken by the case on line 4"):
        append_case(path, case(case_id="late"))
    assert path.read_text() == CASES


def test_text_that_utf8_cannot_hold(tmp_path: Path) -> None:
    """Half a surrogate pair goes into no set, and the file stays."""
    path = write(tmp_path, CASES)
    with pytest.raises(BadInput, match="write it by hand"):
        append_case(path, case().model_copy(update={"input": "half \ud83d"}))
    assert path.read_text() == CASES


def test_a_full_disk(tmp_path: Path) -> None:
    """Where no more bytes can be written, the set stands as it was with nothing beside it."""
    path = write(tmp_path, CASES)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(BadInput, match=r"cases\.yaml: cannot be written"):
            append_case(path, case())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == CASES
    assert os.listdir(tmp_path) == ["cases.yaml"]


ADDER = """
import datetime as dt, sys
from pathlib import Path
from handrail.evals import Case, append_case, freeze

path, name, today = Path(sys.argv[1]), sys.argv[2], dt.date(2026, 11, 25)
print("ready", flush=True)
input()
for number in range(10):
    case_id = f"{name}-{number}"
    append_case(path, Case(id=case_id, input="?", expect={"refund": True}, source="this test", date=today))
    freeze(path, case_id, today)
"""


def adder(path: Path, name: str) -> "subprocess.Popen[str]":
    """A process that says when it is ready, and adds ten cases once it is told to."""
    command = [sys.executable, "-c", ADDER, str(path), name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_side_by_side(tmp_path: Path) -> None:
    """Three processes add to one set at once: every case is in it once and was frozen once, with nothing beside it."""
    path = write(tmp_path, CASES)
    freeze(path, "first", TODAY)
    names = ("ann", "ben", "cleo")
    with ExitStack() as opened:
        adders = [opened.enter_context(adder(path, name)) for name in names]
        for each in adders:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        for each in adders:
            assert each.stdin is not None
            each.stdin.write("go\n")
            each.stdin.flush()
    assert [each.returncode for each in adders] == [0, 0, 0]
    loaded = load_set(path)
    wanted = sorted(f"{name}-{number}" for name in names for number in range(10))
    assert sorted(found.id for found in loaded.cases[2:]) == wanted
    check_frozen(loaded, lock_path(path))
    assert sorted(added for change in history(path)[1:] for added in change.added) == wanted
    assert sorted(os.listdir(tmp_path)) == ["cases.lock", "cases.yaml"]


def test_waiting_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that others do not let go of is left as it was, with how long was waited; once they do, it grows."""
    monkeypatch.setattr("handrail.evals.sets.changing.WAIT_SECONDS", 0.05)
    path, held, enough = write(tmp_path, CASES), Event(), Event()

    def hold() -> None:
        with changing(path):
            held.set()
            enough.wait()

    with ThreadPoolExecutor(1) as other:
        holding = other.submit(hold)
        held.wait()
        try:
            with pytest.raises(BadInput, match=r"cases\.yaml: another process .* for 0\.05 seconds; try again"):
                append_case(path, case())
        finally:
            enough.set()
        holding.result()
    assert path.read_text() == CASES
    append_case(path, case())
    assert load_set(path).cases[2] == case()


def test_nothing_to_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no temporary file can be made, a set that cannot be locked is left as it was."""
    path = write(tmp_path, CASES)
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    with pytest.raises(BadInput, match=r"cannot be locked .*; let TMPDIR name another folder"):
        append_case(path, case())
    assert path.read_text() == CASES


def test_the_file_keeps_its_permissions(tmp_path: Path) -> None:
    """Who may read and write the set is as before."""
    path = write(tmp_path, CASES)
    path.chmod(0o640)
    append_case(path, case())
    assert path.stat().st_mode & 0o777 == 0o640

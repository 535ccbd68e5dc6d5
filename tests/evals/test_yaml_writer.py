"""Appending a case to the YAML of an eval set."""

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

from handrail.evals.eval_set.file_lock import exclusive_edit
from handrail.evals.eval_set.lock import check_frozen, freeze, freeze_history, lock_path
from handrail.evals.eval_set.model import Case, load_eval_set
from handrail.evals.eval_set.yaml_writer import append_cases
from handrail.kernel.errors import BadInput
from tests.evals.test_eval_set import CASES, slugs, write

SUPPORT = Path(__file__).parents[2] / "src" / "handrail" / "examples" / "support_triage" / "evals"
TODAY = dt.date(2026, 11, 25)

# Every character that UTF-8 can encode, and more often those with a meaning in YAML.
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


def case(text: str = "Where is it?", case_id: str = "run-1", **overrides: object) -> Case:
    fields = {"expect": {"category": "delivery"}, "source": "this test", "date": TODAY, **overrides}
    return Case.model_validate({"id": case_id, "input": text, **fields})


def append(path: Path, new: Case) -> str:
    """Appends a case and returns the added text; the existing bytes must not change."""
    before = path.read_bytes()
    append_cases(path, new)
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
def test_a_case_survives_writing_and_reading(tmp_path_factory: pytest.TempPathFactory, new: Case) -> None:
    """A case with any texts and values reads back unchanged, and the file keeps every byte it had."""
    path = write(tmp_path_factory.mktemp("set"), CASES)
    old = load_eval_set(path).cases
    append(path, new)
    assert load_eval_set(path).cases == (*old, new)


@given(st.lists(cases, min_size=2, max_size=3, unique_by=lambda new: new.id))
def test_one_after_another(tmp_path_factory: pytest.TempPathFactory, several: list[Case]) -> None:
    """Cases can be appended one after another, with any text at their end."""
    path = write(tmp_path_factory.mktemp("set"), CASES)
    for new in several:
        append(path, new)
    assert load_eval_set(path).cases[2:] == tuple(several)


@given(texts)
def test_both_readers_agree(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """PyYAML's Python loader, used where the C one is missing, reads the same text."""
    path = write(tmp_path_factory.mktemp("set"), CASES)
    append(path, case(text))
    assert yaml.load(path.read_bytes(), yaml.SafeLoader)["cases"][2]["input"] == text


def test_the_layout(tmp_path: Path) -> None:
    """A message of several lines is written as a block, and values on one line."""
    new = case(
        "Hello,\n\nwhere is it?",
        expect={"category": "delivery", "order": "1042", "refund": True, "note": None},
        source="production run run_1, marked wrong by ann on 2026-11-25",
        tags=["production"],
    )
    assert append(write(tmp_path, CASES), new) == (
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


def test_invisible_characters_are_escaped(tmp_path: Path) -> None:
    """Direction marks and control characters are written as escapes, which a reviewer can see."""
    written = append(write(tmp_path, CASES), case("pay \u202eeuro 9\x07"))
    assert '"pay \\u202eeuro 9\\x07"' in written


def test_the_real_set(tmp_path: Path) -> None:
    """A case is appended to the support-triage set after a blank line, as in the rest of the file."""
    folder = tmp_path / "evals"
    shutil.copytree(SUPPORT, folder)
    old = load_eval_set(folder / "cases.yaml")
    written = append(folder / "cases.yaml", case("Where is 1042?\n"))
    assert written.startswith("\n  - id: run-1\n    input: |\n      Where is 1042?\n")
    assert load_eval_set(folder / "cases.yaml").cases == (*old.cases, case("Where is 1042?\n"))
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
    """A case can be appended to a set in any supported layout, and the existing cases do not change."""
    path = write(tmp_path, text)
    old = load_eval_set(path).cases
    append(path, case("one\n\ntwo\n"))
    assert load_eval_set(path).cases == (*old, case("one\n\ntwo\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cases:\n" + CASES.partition("cases:\n")[2] + "name: a\ndescription: b\n", "move `cases` there"),
        (
            "name: a\ndescription: b\ncases: [{id: x, input: y, expect: {a: 1}, source: s, date: 2026-01-01}]\n",
            "cases.yaml:3: cases: cases can be appended to a block list only",
        ),
        (CASES + "...\n", "write the case by hand"),
        (CASES.replace("name: parcels\n", ""), "name: this field is required"),
    ],
    ids=["not last", "flow list", "ended", "no set"],
)
def test_sets_that_cannot_be_appended_to(tmp_path: Path, text: str, message: str) -> None:
    """A set to which a case cannot be appended safely is refused, and its file and folder are not changed."""
    path = write(tmp_path, text)
    with pytest.raises(BadInput) as caught:
        append_cases(path, case())
    assert message in str(caught.value)
    assert path.read_text() == text
    assert os.listdir(tmp_path) == ["cases.yaml"]


def test_an_id_that_is_in_use(tmp_path: Path) -> None:
    """A case whose id is in use is refused, naming the line that has it, and the file is unchanged."""
    path = write(tmp_path, CASES)
    with pytest.raises(BadInput, match=r"cases\.yaml:\d+: case 'late', id: the case on line 4 already has this id"):
        append_cases(path, case(case_id="late"))
    assert path.read_text() == CASES


def test_text_that_utf8_cannot_encode(tmp_path: Path) -> None:
    """A case with a lone surrogate is refused, and the file is not changed."""
    path = write(tmp_path, CASES)
    with pytest.raises(BadInput, match="write the case by hand"):
        append_cases(path, case().model_copy(update={"input": "half \ud83d"}))
    assert path.read_text() == CASES


def test_a_full_disk(tmp_path: Path) -> None:
    """When no more bytes can be written, the eval set is unchanged and no other file is left."""
    path = write(tmp_path, CASES)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(BadInput, match=r"cases\.yaml: cannot be written"):
            append_cases(path, case())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == CASES
    assert os.listdir(tmp_path) == ["cases.yaml"]


ADDER = """
import datetime as dt, sys
from pathlib import Path
from handrail.evals.eval_set.lock import freeze
from handrail.evals.eval_set.model import Case
from handrail.evals.eval_set.yaml_writer import append_cases

path, name, today = Path(sys.argv[1]), sys.argv[2], dt.date(2026, 11, 25)
print("ready", flush=True)
input()
for number in range(10):
    case_id = f"{name}-{number}"
    append_cases(path, Case(id=case_id, input="?", expect={"refund": True}, source="this test", date=today))
    freeze(path, case_id, today)
"""


def adder(path: Path, name: str) -> "subprocess.Popen[str]":
    """A process that prints a line when it is ready, and appends ten cases after reading a line."""
    command = [sys.executable, "-c", ADDER, str(path), name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_concurrent_processes(tmp_path: Path) -> None:
    """Of three processes that append to one set, each case is stored and frozen once, and no other files are left."""
    path = write(tmp_path, CASES)
    freeze(path, "first", TODAY)
    names = ("ann", "ben", "cleo")
    with ExitStack() as stack:
        adders = [stack.enter_context(adder(path, name)) for name in names]
        for process in adders:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in adders:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
    assert [process.returncode for process in adders] == [0, 0, 0]
    loaded = load_eval_set(path)
    expected = sorted(f"{name}-{number}" for name in names for number in range(10))
    assert sorted(added.id for added in loaded.cases[2:]) == expected
    check_frozen(loaded, lock_path(path))
    assert sorted(added for change in freeze_history(path)[1:] for added in change.added) == expected
    assert sorted(os.listdir(tmp_path)) == ["cases.lock", "cases.yaml"]


def test_waiting_for_the_lock_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process keeps the lock, appending fails after a time and changes nothing; later it succeeds."""
    monkeypatch.setattr("handrail.evals.eval_set.file_lock.WAIT_SECONDS", 0.05)
    path, held, release = write(tmp_path, CASES), Event(), Event()

    def hold() -> None:
        with exclusive_edit(path):
            held.set()
            release.wait()

    with ThreadPoolExecutor(1) as other:
        holding = other.submit(hold)
        held.wait()
        try:
            with pytest.raises(BadInput, match=r"cases\.yaml: another process .* for 0\.05 seconds; try again"):
                append_cases(path, case())
        finally:
            release.set()
        holding.result()
    assert path.read_text() == CASES
    append_cases(path, case())
    assert load_eval_set(path).cases[2] == case()


def test_a_set_that_cannot_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An eval set that cannot be locked, since no temporary file can be created, is unchanged."""
    path = write(tmp_path, CASES)
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    with pytest.raises(BadInput, match=r"cannot be locked .*; set TMPDIR to another folder"):
        append_cases(path, case())
    assert path.read_text() == CASES


def test_the_file_keeps_its_permissions(tmp_path: Path) -> None:
    """Appending a case keeps the file's permissions."""
    path = write(tmp_path, CASES)
    path.chmod(0o640)
    append_cases(path, case())
    assert path.stat().st_mode & 0o777 == 0o640

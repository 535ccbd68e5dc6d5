"""Eval sets: reading, error messages, and the changes that the lock detects."""

import datetime as dt
import json
import os
import resource
from pathlib import Path
from random import Random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from handrail.evals.eval_set.lock import EvalSetDiff, check_frozen, diff_hashes, freeze, lock_path
from handrail.evals.eval_set.model import Case, EvalSet, load_eval_set
from handrail.kernel.errors import BadInput

TODAY = dt.date(2026, 11, 22)

CASES = """\
name: parcels
description: Two parcels.
cases:
  - id: late
    input: |
      Where is it?
    expect: {category: delivery, order: "1042", refund: true}
    source: written for this test
    date: 2026-11-22
    tags: [english, late]
  - id: thanks
    input: Thank you!
    expect: {category: other, order: null}
    source: written for this test
    date: 2026-11-22
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "cases.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        load_eval_set(path)
    return str(caught.value)


slugs = st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8})?", fullmatch=True)
# Only characters that YAML can represent, so that a set can be written and read.
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")), min_size=1, max_size=20)
lines = texts.map(str.strip).filter(lambda text: text and len(text.splitlines()) == 1)
values = st.none() | st.booleans() | st.integers(-1000, 1000) | texts
cases = st.builds(
    Case,
    id=slugs,
    input=texts,
    input_file=st.none(),
    expect=st.dictionaries(slugs, values, min_size=1, max_size=3),
    source=lines,
    date=st.dates(dt.date(2020, 1, 1), dt.date(2030, 1, 1)),
    tags=st.lists(slugs, max_size=3, unique=True).map(tuple),
)
sets = st.builds(
    EvalSet,
    name=slugs,
    description=texts,
    cases=st.lists(cases, min_size=1, max_size=4, unique_by=lambda case: case.id).map(tuple),
)


def test_reads_cases_with_their_expectations(tmp_path: Path) -> None:
    """An eval set is read with its inputs, expected values and tags as written."""
    loaded = load_eval_set(write(tmp_path, CASES))
    assert [case.id for case in loaded.cases] == ["late", "thanks"]
    assert loaded.cases[0].input == "Where is it?\n"
    assert loaded.cases[0].expect == {"category": "delivery", "order": "1042", "refund": True}
    assert loaded.cases[1].expect == {"category": "other", "order": None}


@given(sets, st.randoms())
def test_hash_ignores_the_order_of_cases_and_tags(original: EvalSet, random: Random) -> None:
    """Shuffling cases, or the tags of a case, leaves the content hash as it is."""
    shuffled = list(original.cases)
    random.shuffle(shuffled)
    reversed_tags = tuple(case.model_copy(update={"tags": case.tags[::-1]}) for case in shuffled)
    assert original.model_copy(update={"cases": reversed_tags}).content_hash == original.content_hash


@given(sets, st.booleans(), st.booleans(), st.sampled_from([20, 80, 1000]))
def test_hash_ignores_how_the_yaml_is_laid_out(
    tmp_path_factory: pytest.TempPathFactory, original: EvalSet, flow: bool, ascii_only: bool, width: int
) -> None:
    """Flow or block style, escapes and line width do not change the content hash."""
    data = original.model_dump(exclude={"cases": {"__all__": {"input_file"}}})
    data["cases"] = [{**case, "tags": list(case["tags"])} for case in data["cases"]]
    text = yaml.safe_dump(data, default_flow_style=flow, allow_unicode=not ascii_only, width=width)
    loaded = load_eval_set(write(tmp_path_factory.mktemp("set"), text))
    assert loaded.content_hash == original.content_hash


@given(sets, cases, st.sampled_from(["id", "input", "expect", "source", "date", "tags"]))
def test_hash_changes_with_any_field(original: EvalSet, other: Case, field: str) -> None:
    """The content hash changes exactly if the value of a field changes."""
    changed = original.cases[0].model_copy(update={field: getattr(other, field)})
    same = sorted(changed.tags) == sorted(original.cases[0].tags) if field == "tags" else changed == original.cases[0]
    after = original.model_copy(update={"cases": (changed, *original.cases[1:])})
    assert (after.content_hash == original.content_hash) == same


def test_hash_depends_on_the_types_of_expected_values() -> None:
    """1, true, 1.0 and "1" are four different expectations."""
    base = {"id": "a", "input": "x", "source": "s", "date": TODAY}
    hashes = {Case.model_validate({**base, "expect": {"v": v}}).content_hash for v in (1, True, 1.0, "1")}
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: parcels\n", "", "cases.yaml:1: name: this field is required"),
        ("name: parcels", "name: Parcels!", "cases.yaml:1: name: "),
        ("  - id: thanks", "  - id: late", "cases.yaml:11: case 'late', id: the case on line 4 already has this id"),
        ("    input: Thank you!\n", "", "cases.yaml:11: case 'thanks', input: this field is required"),
        ("input: Thank you!", "input: 12", "cases.yaml:12: case 'thanks', input: Input should be a valid string"),
        ("input: Thank you!", 'input: ""', "cases.yaml:12: case 'thanks', input: "),
        ("    tags: [", "    tag: [", "cases.yaml:10: case 'late', tag: no such field"),
        ("    tags: [english", "    tags: [7", "cases.yaml:10: case 'late', tags.0: Input should be a valid string"),
        ("date: 2026-11-22\n    tags", "date: soon\n    tags", "cases.yaml:9: case 'late', date: "),
        ("date: 2026-11-22\n    tags", "date: 2026-11-32\n    tags", "cases.yaml:9: '2026-11-32' cannot be read"),
        ("refund: true", "refund: .nan", "cases.yaml:7: case 'late', expect.refund"),
        ("refund: true", "refund: 2026-11-22", "cases.yaml:7: case 'late', expect.refund"),
        ("order: null", "category: billing", "cases.yaml:13: the key 'category' occurs twice"),
        ("order: null", "1: billing", "cases.yaml:13: a key is not text"),
        ("input: Thank you!", "input: &a Hi\n    extra: *a", "cases.yaml:13: an alias (*name)"),
        ("input: Thank you!", "input: {repeat: 3}", "cases.yaml:12: case 'thanks', input: "),
        ("expect: {category: other, order: null}", "expect: {}", "cases.yaml:13: case 'thanks', expect: "),
        ("expect: {category: other, order: null}", "expect: {category: other", "not valid YAML"),
        ("Thank you!", "!!python/name:os.system", "cases.yaml:12: not valid YAML"),
        ("Thank you!", "Thank \x07you", "not valid YAML"),
    ],
)
def test_errors_name_line_and_case(tmp_path: Path, old: str, new: str, message: str) -> None:
    """An error in an eval set names the file, line and case."""
    assert old in CASES
    assert message in refusal(write(tmp_path, CASES.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"- a\n- b\n", "cases.yaml:1: the file: "),
        (b"name: a\ndescription: b\ncases: 3\n", "cases.yaml:3: cases: "),
        (b"name: a\ndescription: b\ncases: []\n", "cases.yaml:3: cases: an eval set needs at least one case; add one"),
        (b"name: a\ndescription: b\ncases:\n  - 3\n", "cases.yaml:4: case number 1"),
        (b"name: a\ndescription: \xff\n", "cases.yaml:2: not UTF-8 (byte 0xff)"),
        (b"a: " + b"[" * 100_000, "cases.yaml:1: more than 20 levels"),
        (b"a: &x [*x]\n", "alias"),
    ],
)
def test_a_file_that_is_not_an_eval_set_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Empty, malformed, binary, recursive and too deeply nested files are refused with a message."""
    assert message in refusal(write(tmp_path, content))


def test_the_first_five_errors_are_listed(tmp_path: Path) -> None:
    """The first five errors are listed and the rest counted."""
    text = "name: a\ndescription: b\ncases:\n" + "  - id: x\n" * 3
    message = refusal(write(tmp_path, text))
    assert message.count("this field is required") == 5
    assert message.endswith("and 7 more")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """A path without a file is named in the error."""
    assert "absent.yaml: cannot be read" in refusal(tmp_path / "absent.yaml")


def with_input_file(folder: Path, name: str) -> Path:
    return write(folder, CASES.replace("input: Thank you!", f"input_file: {name}"))


def test_an_input_file_counts_like_an_input(tmp_path: Path) -> None:
    """The input is the content of the file, and changing one byte of it changes the hash."""
    (tmp_path / "paste.txt").write_bytes(b"Thank you!")
    loaded = load_eval_set(with_input_file(tmp_path, "paste.txt"))
    inline = load_eval_set(write(tmp_path, CASES))
    assert loaded.cases[1].input == "Thank you!"
    assert loaded.content_hash == inline.content_hash
    (tmp_path / "paste.txt").write_bytes(b"Thank you!\r\n")
    assert load_eval_set(with_input_file(tmp_path, "paste.txt")).content_hash != inline.content_hash


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/hostname", "link.txt", '"a\\0b"', "absent.txt", "."])
def test_an_input_file_must_be_in_the_folder(tmp_path: Path, name: str) -> None:
    """Paths outside the eval set's folder, links included, and missing files are refused, naming the case."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert "case 'thanks', input_file: " in refusal(with_input_file(folder, name))


def test_a_case_has_one_input(tmp_path: Path) -> None:
    """A case with an inline input and an input file is refused."""
    text = CASES.replace("input: Thank you!", "input: Thank you!\n    input_file: paste.txt")
    assert "both input and input_file" in refusal(write(tmp_path, text))


hashes = st.dictionaries(slugs, st.sampled_from("abc"), max_size=6)


@given(hashes, hashes)
def test_diff_hashes_covers_every_case(before: dict[str, str], after: dict[str, str]) -> None:
    """Each case that was added, removed or changed is in exactly that list."""
    diff = diff_hashes(before, after)
    for case in before.keys() | after.keys():
        assert (case in diff.added) == (case not in before)
        assert (case in diff.removed) == (case not in after)
        assert (case in diff.changed) == (case in before and case in after and before[case] != after[case])
    assert bool(diff) == (before != after)


def test_a_set_without_a_lock_is_not_frozen(tmp_path: Path) -> None:
    """A missing lock is an error that gives the command to freeze."""
    path = write(tmp_path, CASES)
    with pytest.raises(BadInput, match=r'missing.*handrail eval freeze parcels --why "\.\.\."'):
        check_frozen(load_eval_set(path), lock_path(path))


def test_a_frozen_set_passes_until_a_case_differs(tmp_path: Path) -> None:
    """After freezing, the eval set passes; later additions, changes and removals are reported."""
    path = write(tmp_path, CASES)
    frozen = freeze(path, "first cases", TODAY)
    assert frozen.diff == EvalSetDiff(added=("late", "thanks"))
    check_frozen(load_eval_set(path), frozen.lock)
    changed = CASES.replace("refund: true", "refund: false").replace("id: thanks", "id: many-thanks")
    with pytest.raises(BadInput) as caught:
        check_frozen(load_eval_set(write(tmp_path, changed)), frozen.lock)
    assert "added: many-thanks; changed: late; removed: thanks" in str(caught.value)
    assert 'handrail eval freeze parcels --why "..."' in str(caught.value)


def test_freezing_appends_to_the_history(tmp_path: Path) -> None:
    """Each freeze appends its hash, date, reason, case count and case ids to the history."""
    path = write(tmp_path, CASES)
    first = freeze(path, "first cases", TODAY)
    write(tmp_path, CASES.replace("refund: true", "refund: false"))
    second = freeze(path, "the policy\nchanged", dt.date(2026, 12, 1))
    lock = json.loads(second.lock.read_text())
    assert lock["hash"] == second.content_hash == load_eval_set(path).content_hash
    assert [entry["hash"] for entry in lock["history"]] == [first.content_hash, second.content_hash]
    assert lock["history"][1] == {
        "hash": second.content_hash,
        "date": "2026-12-01",
        "why": "the policy changed",
        "cases": 2,
        "added": [],
        "changed": ["late"],
        "removed": [],
    }


def test_freezing_an_unchanged_set_writes_nothing(tmp_path: Path) -> None:
    """A second freeze without changes does not write the file."""
    path = write(tmp_path, CASES)
    lock = freeze(path, "first cases", TODAY).lock
    before = (lock.read_bytes(), lock.stat().st_mtime_ns, lock.stat().st_ino)
    again = freeze(path, "no change at all", TODAY)
    assert not again.written
    assert (lock.read_bytes(), lock.stat().st_mtime_ns, lock.stat().st_ino) == before


@pytest.mark.parametrize("why", ["", "  \n"])
def test_freezing_needs_a_reason(tmp_path: Path, why: str) -> None:
    """Without a reason nothing is frozen."""
    path = write(tmp_path, CASES)
    with pytest.raises(BadInput, match="--why"):
        freeze(path, why, TODAY)
    assert os.listdir(tmp_path) == ["cases.yaml"]


def test_a_lock_that_cannot_be_written_is_not_changed(tmp_path: Path) -> None:
    """When no more bytes can be written, freezing fails, the old lock is unchanged and no other file is left."""
    path = write(tmp_path, CASES)
    lock = freeze(path, "first cases", TODAY).lock
    before = lock.read_bytes()
    write(tmp_path, CASES.replace("refund: true", "refund: false"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(BadInput, match=r"cases\.lock: cannot be written"):
            freeze(path, "a change", TODAY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert lock.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["cases.lock", "cases.yaml"]


@pytest.mark.parametrize("damage", ["not json", "{}", "swap"])
def test_a_damaged_lock_is_refused(tmp_path: Path, damage: str) -> None:
    """A lock that is not JSON, lacks fields, or contains contradicting hashes is refused."""
    path = write(tmp_path, CASES)
    frozen = freeze(path, "first cases", TODAY)
    late = load_eval_set(path).case_hashes["late"]
    frozen.lock.write_text(frozen.lock.read_text().replace(late, "0" * 64) if damage == "swap" else damage)
    with pytest.raises(BadInput, match=r"cases\.lock: not as .* restore it"):
        check_frozen(load_eval_set(path), frozen.lock)

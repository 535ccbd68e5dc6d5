"""More cases at the end of a set's YAML, every byte that stands there kept: comments and layout are its authors'."""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import JsonValue
from yaml.representer import SafeRepresenter

from handrail.kernel.errors import BadInput
from handrail.kernel.files import replace_file

from .file_lock import changing
from .model import Case, load_set
from .yaml_reader import Loader, read_text

# What stands in YAML as it is. Left out, and written as escapes: what YAML does not allow, what it takes for a line
# break or a byte order mark, and the marks that turn the direction of text and so hide it from a reviewer.
_OPEN = r"\x20-\x7e\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff"
_BLOCK = re.compile(rf"(?s)(?=.*\S)[{_OPEN}\t\n]*")
_ESCAPED = re.compile(rf'[^{_OPEN}]|["\\]')
_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_STEP = 2


def append_case(path: Path, *cases: Case) -> None:
    """Adds `cases` at the end of the set at `path`, in one step: a reader or a crash never meets half of it.

    The text that results is read back before it takes the file's place: the old cases as they were and the new ones.
    Raises BadInput, the file untouched, where that is not so; where the set cannot be read or written, or others are
    changing it; and where `cases` is not a block list and the last key.
    """
    with changing(path):
        _append(path, cases)


def _append(path: Path, cases: Sequence[Case]) -> None:
    before = load_set(path)
    raw, text = path.read_bytes(), read_text(path)
    column, spaced = _end_of_list(path, text)
    written = "".join("\n" * spaced + written_case(case, " " * column) for case in cases)
    if not text.endswith("\n"):
        written = "\n" + written
    if "\r\n" in text:
        written = written.replace("\n", "\r\n")
    expected = (*before.case_hashes.items(), *((case.id, case.content_hash) for case in cases))
    try:
        # Beside the set, since a case's input_file is found from there.
        mode = path.stat().st_mode & 0o777
        replace_file(path, raw + written.encode(), mode=mode, check=lambda file: _check(path, file, expected))
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); the set is as it was") from error


def _check(path: Path, written: Path, expected: tuple[tuple[str, str], ...]) -> None:
    try:
        found = tuple(load_set(written).case_hashes.items())
    except BadInput as error:
        problem = str(error).replace(str(written), str(path))
        raise BadInput(
            f"{path} is as it was: with the case it could not be read; write it by hand ({problem})"
        ) from error
    if found != expected:
        raise BadInput(f"{path} is as it was: the case would not read back beside the others; write it by hand")


def _end_of_list(path: Path, text: str) -> tuple[int, bool]:
    """The column in which the cases' dashes stand, and whether a blank line goes before the next one."""
    root = yaml.compose(text, Loader=Loader)
    assert isinstance(root, yaml.MappingNode)
    key, value = root.value[-1]
    if key.value != "cases":
        raise BadInput(f"{path}:{key.start_mark.line + 1}: {key.value}: a case is added at the end; move cases there")
    if root.flow_style or value.flow_style:
        line = value.start_mark.line + 1
        raise BadInput(f"{path}:{line}: cases: a case can be added to a block list only; begin each case with '- '")
    before_last = text.splitlines()[value.value[-1].start_mark.line - 1]
    # To a block of text that is open at its end, a blank line would be one more line of it.
    return value.start_mark.column, not before_last.strip() and not _ends_in_block(value)


def _ends_in_block(node: yaml.Node) -> bool:
    while isinstance(node, yaml.CollectionNode) and node.value:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")


def written_case(case: Case, margin: str) -> str:
    """The case as an entry of a block list whose dashes stand behind `margin`, ending in a line break."""
    fields = {
        "id": _inline(case.id),
        "input": _text(case.input, f"{margin}{' ' * 2 * _STEP}"),
        "expect": _inline(case.expect),
        "source": _inline(case.source),
        "date": case.date.isoformat(),
        "tags": _inline(list(case.tags)),
    }
    inside = f"\n{margin}{' ' * _STEP}"
    return f"{margin}- {inside.join(f'{name}: {value}' for name, value in fields.items()).lstrip()}\n"


def _text(text: str, margin: str) -> str:
    """As a block that keeps every line, or in quotes where a block cannot hold it."""
    if not _BLOCK.fullmatch(text):
        return _inline(text)
    # The digit says where the text begins, which the parser else guesses from a first line that must not be indented.
    digit = _STEP if text[0].isspace() else ""
    tail = "+" if text.endswith("\n\n") else "" if text.endswith("\n") else "-"
    lines = text.removesuffix("\n").split("\n")
    return "\n".join([f"|{digit}{tail}", *(margin + line if line else "" for line in lines)])


def _inline(value: JsonValue) -> str:
    """On one line: lists and mappings in brackets, texts bare where nothing can be misread, else in quotes."""
    match value:
        case str():
            bare = _BARE.fullmatch(value) and yaml.safe_load(value) == value
            return value if bare else f'"{_ESCAPED.sub(_escape, value)}"'
        case list():
            return f"[{', '.join(map(_inline, value))}]"
        case dict():
            return "{" + ", ".join(f"{_inline(key)}: {_inline(each)}" for key, each in value.items()) + "}"
        case _:
            return str(SafeRepresenter().represent_data(value).value)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in '"\\':
        return f"\\{match[0]}"
    if match[0] == "\n":
        return "\\n"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

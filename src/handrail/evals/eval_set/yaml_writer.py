"""Appends cases to an eval set's YAML and leaves the rest as its authors wrote it, byte for byte."""

import re
from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import JsonValue
from yaml.representer import SafeRepresenter

from handrail.kernel.errors import BadInput
from handrail.kernel.files import replace_file

from .file_lock import exclusive_edit
from .model import Case, load_eval_set
from .yaml_reader import Loader, read_text

# The characters that are written as they are. Escaped are those that YAML does not allow, those it takes for line
# breaks or a byte order mark, and those that change the direction of text and so can hide it from a reviewer.
_PLAIN = r"\x20-\x7e\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff"
_BLOCK = re.compile(rf"(?s)(?=.*\S)[{_PLAIN}\t\n]*")
_ESCAPED = re.compile(rf'[^{_PLAIN}]|["\\]')
_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_INDENT = 2


def append_cases(path: Path, *cases: Case) -> None:
    """Appends cases to the eval set at `path` atomically, so that neither a reader nor a crash leaves half of it.

    The new text is read back before it replaces the file, and has to give the old cases unchanged, then the new ones.

    Args:
        path: The eval set.
        cases: The cases to append.

    Raises:
        BadInput: The text would not read back, `cases` is not the last key and a block list, or the file cannot be
            read, locked or written. The file is unchanged then.
    """
    with exclusive_edit(path):
        _append(path, cases)


def _append(path: Path, cases: Sequence[Case]) -> None:
    before = load_eval_set(path)
    raw, text = path.read_bytes(), read_text(path)
    column, blank_line = _list_style(path, text)
    addition = "".join("\n" * blank_line + format_case(case, " " * column) for case in cases)
    if not text.endswith("\n"):
        addition = "\n" + addition
    if "\r\n" in text:
        addition = addition.replace("\n", "\r\n")
    expected_hashes = (*before.case_hashes.items(), *((case.id, case.content_hash) for case in cases))
    try:
        mode = path.stat().st_mode & 0o777
        # The temporary file is in the same folder, so the check finds each case's input_file.
        replace_file(path, raw + addition.encode(), mode=mode, check=lambda file: _check(path, file, expected_hashes))
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); the eval set is unchanged") from error


def _check(path: Path, written: Path, expected_hashes: tuple[tuple[str, str], ...]) -> None:
    try:
        hashes = tuple(load_eval_set(written).case_hashes.items())
    except BadInput as error:
        problem = str(error).replace(str(written), str(path))
        raise BadInput(
            f"{path} is unchanged: with the case it could not be read; write the case by hand ({problem})"
        ) from error
    if hashes != expected_hashes:
        raise BadInput(f"{path} is unchanged: the case would not read back correctly; write it by hand")


def _list_style(path: Path, text: str) -> tuple[int, bool]:
    """The column of the dashes in the list of cases, and whether cases are separated by a blank line."""
    root = yaml.compose(text, Loader=Loader)
    assert isinstance(root, yaml.MappingNode)
    key, value = root.value[-1]
    if key.value != "cases":
        raise BadInput(
            f"{path}:{key.start_mark.line + 1}: {key.value}: cases are appended at the end; move `cases` there"
        )
    if root.flow_style or value.flow_style:
        line = value.start_mark.line + 1
        raise BadInput(f"{path}:{line}: cases: cases can be appended to a block list only; start each case with '- '")
    before_last = text.splitlines()[value.value[-1].start_mark.line - 1]
    # If the last case ends in a block scalar, a blank line would become part of its text.
    return value.start_mark.column, not before_last.strip() and not _ends_in_block(value)


def _ends_in_block(node: yaml.Node) -> bool:
    while isinstance(node, yaml.CollectionNode) and node.value:
        node = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")


def format_case(case: Case, margin: str) -> str:
    """The case as an entry of a block list, its dash after `margin`, with a final line break."""
    fields = {
        "id": _inline(case.id),
        "input": _text(case.input, f"{margin}{' ' * 2 * _INDENT}"),
        "expect": _inline(case.expect),
        "source": _inline(case.source),
        "date": case.date.isoformat(),
        "tags": _inline(list(case.tags)),
    }
    inside = f"\n{margin}{' ' * _INDENT}"
    return f"{margin}- {inside.join(f'{name}: {value}' for name, value in fields.items()).lstrip()}\n"


def _text(text: str, margin: str) -> str:
    """The text as a block scalar, or in quotes where a block scalar cannot hold it."""
    if not _BLOCK.fullmatch(text):
        return _inline(text)
    # With the digit, the parser does not infer the indentation from the first line, which is wrong if that is indented.
    digit = _INDENT if text[0].isspace() else ""
    chomping = "+" if text.endswith("\n\n") else "" if text.endswith("\n") else "-"
    lines = text.removesuffix("\n").split("\n")
    return "\n".join([f"|{digit}{chomping}", *(margin + line if line else "" for line in lines)])


def _inline(value: JsonValue) -> str:
    """A value on one line: lists and mappings in brackets, texts in quotes where they need them."""
    match value:
        case str():
            bare = _BARE.fullmatch(value) and yaml.safe_load(value) == value
            return value if bare else f'"{_ESCAPED.sub(_escape, value)}"'
        case list():
            return f"[{', '.join(map(_inline, value))}]"
        case dict():
            return "{" + ", ".join(f"{_inline(key)}: {_inline(item)}" for key, item in value.items()) + "}"
        case _:
            return str(SafeRepresenter().represent_data(value).value)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in '"\\':
        return f"\\{match[0]}"
    if match[0] == "\n":
        return "\\n"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

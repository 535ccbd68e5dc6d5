"""Strict reading of YAML that people review; every error names the file and the line.

PyYAML keeps the last of two equal keys and expands aliases. In a file that decides whether an agent is released, the
first hides a mistake and the second hides content from the reader, so both are errors here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from handrail.kernel.errors import BadInput

# The C loader is about ten times faster and is missing from some builds of PyYAML.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_MAX_DEPTH = 20
"""Levels of nesting. The C loader builds nodes recursively, so a file of brackets would overflow its stack."""


class _Mark(Protocol):
    """A position in the text, as both of PyYAML's loaders give it."""

    line: int


@dataclass(frozen=True)
class Document:
    """A YAML file as plain values, with the line of each value.

    `lines` maps a path of keys and indexes, `("cases", 3, "expect")`, to a line counted from 1.
    """

    path: Path
    value: object
    lines: dict[tuple[str | int, ...], int]

    def line(self, where: tuple[str | int, ...]) -> int:
        """The line of the value at this path, or of its nearest parent (a missing field has no line)."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)


def read_text(path: Path) -> str:
    """The file's text, with line endings as they are. Raises BadInput when it cannot be read or is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"{path}:{line}: not UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8"
        ) from error


def read_yaml(path: Path) -> Document:
    """Parses one YAML document of mappings with text keys, lists and scalars. Raises BadInput for anything else."""
    text = read_text(path)
    lines: dict[tuple[str | int, ...], int] = {}
    try:
        _refuse_aliases_and_depth(path, text)
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise BadInput(f"{path}: the file is empty; give it a name, a description and cases")
            value = _Reader(path, loader, lines).read(node, ())
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        problem = error.problem or error.context or "unreadable"
        raise BadInput(f"{_at(path, error.problem_mark)}: not valid YAML: {problem}; correct that line") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not valid YAML: {' '.join(str(error).split())}; remove that character") from error
    return Document(path, value, lines)


def _refuse_aliases_and_depth(path: Path, text: str) -> None:
    """Finds aliases and deep nesting in the stream of events, before anything is built from it."""
    depth = 0
    for event in yaml.parse(text, Loader=Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.AliasEvent):
            problem = "an alias (*name) repeats another part; write the value out, so that readers see it"
        elif depth > _MAX_DEPTH:
            problem = f"more than {_MAX_DEPTH} levels of nesting; an eval set needs a few"
        else:
            continue
        raise BadInput(f"{_at(path, event.start_mark)}: {problem}")


class _Reader:
    """Turns YAML nodes into plain values and records their lines."""

    def __init__(self, path: Path, loader: yaml.SafeLoader, lines: dict[tuple[str | int, ...], int]) -> None:
        self.path = path
        self.loader = loader
        self.lines = lines

    def read(self, node: yaml.Node, where: tuple[str | int, ...]) -> object:
        """The value of a node; `where` is its path of keys and indexes."""
        self.lines[where] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(child, (*where, index)) for index, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, where: tuple[str | int, ...]) -> dict[str, object]:
        mapping: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise self._error(key_node, "a key is not text; put it in quotes")
            if key in mapping:
                raise self._error(key_node, f"the key {key!r} occurs twice in one mapping; keep one of them")
            mapping[key] = self.read(value_node, (*where, key))
        return mapping

    def _scalar(self, node: yaml.Node) -> object:
        try:
            return self.loader.construct_object(node)
        except ValueError as error:
            raise self._error(
                node, f"{node.value!r} cannot be read ({error}); correct it, or quote it as text"
            ) from error

    def _error(self, node: yaml.Node, problem: str) -> BadInput:
        return BadInput(f"{_at(self.path, node.start_mark)}: {problem}")


def _at(path: Path, mark: _Mark | None) -> str:
    return f"{path}:{mark.line + 1}" if mark else str(path)

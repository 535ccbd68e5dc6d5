"""`python -m bench.run NAME`: runs a benchmark, writes its figures to bench/results/NAME.json and prints them."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console

from bench.figure import as_json, as_table

FOLDER = Path(__file__).parent
_NOT_BENCHMARKS = {"__init__", "evals_peer", "figure", "measure", "run"}


def names(folder: Path = FOLDER) -> list[str]:
    """The benchmarks in `folder`: its modules and packages, except the harness."""
    modules = [file.stem for file in folder.glob("*.py")] + [file.parent.name for file in folder.glob("*/__init__.py")]
    return sorted(set(modules) - _NOT_BENCHMARKS)


def main(arguments: Sequence[str]) -> int:
    """Runs the benchmark that `arguments` name; the exit code is 0, or 2 if there is no such benchmark."""
    known = names()
    if len(arguments) != 1 or arguments[0] not in known:
        listed = ", ".join(known) or "none yet"
        print(f"Usage: make bench NAME=..., with one of: {listed}", file=sys.stderr)
        return 2
    (name,) = arguments
    figures = import_module(f"bench.{name}").figures()
    results = FOLDER / "results"
    results.mkdir(exist_ok=True)
    (results / f"{name}.json").write_text(as_json(figures), encoding="utf-8")
    Console().print(as_table(name, figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

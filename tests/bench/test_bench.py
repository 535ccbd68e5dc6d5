import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from bench.figure import Figure, as_json, as_table
from bench.measure import Comparison, interleaved, raw_fsync_ms
from bench.run import main, names

FIGURES = [
    Figure("wall_ms", 1.5, "ms", "lower", "median of 9", {"bare": 1.25}),
    Figure("rate", 2000, "1/s", "higher", "one process"),
]


def test_file_of_figures() -> None:
    """The file holds exactly the six keys of each figure, in order."""
    (first, second) = json.loads(as_json(FIGURES))["figures"]
    assert list(first) == ["name", "ours", "peers", "unit", "better", "method"]
    assert first["peers"] == {"bare": 1.25}
    assert second["peers"] == {}


def test_table_of_figures() -> None:
    """A peer that was not measured for a figure is a dash in its row."""
    console = Console(width=120)
    with console.capture() as captured:
        console.print(as_table("runs", FIGURES))
    (rate,) = [line for line in captured.get().splitlines() if "rate" in line]
    assert [cell.strip() for cell in rate.strip("│").split("│")] == [
        "rate",
        "2,000",
        "-",
        "1/s",
        "higher",
        "one process",
    ]


def test_interleaved_alternates() -> None:
    """The side that is measured first alternates from round to round."""
    calls = ""

    def side(name: str, values: list[float]) -> Callable[[], float]:
        def measure() -> float:
            nonlocal calls
            calls += name
            return values.pop(0)

        return measure

    comparison = interleaved(side("o", [1, 4, 30]), side("p", [1, 2, 10]), rounds=3)
    assert calls == "oppoop"
    assert comparison == Comparison(ours=4, peer=2, ratio=2)


def test_ratio_is_the_median_of_the_rounds() -> None:
    """The ratio is the median of the rounds' ratios, so one slow round does not determine it."""
    ours, peer = iter([2.0, 20.0, 200.0]), iter([1.0, 200.0, 10.0])
    assert interleaved(ours.__next__, peer.__next__, rounds=3) == Comparison(ours=20, peer=10, ratio=2)


def test_fsync_probe_leaves_nothing(tmp_path: Path) -> None:
    """The probe returns a time and removes its file."""
    assert raw_fsync_ms(tmp_path, rounds=3) > 0
    assert list(tmp_path.iterdir()) == []


def test_benchmarks_are_listed(tmp_path: Path) -> None:
    """A benchmark is a module or a package, but not part of the harness and not a folder of results."""
    for file in (
        "__init__.py",
        "run.py",
        "figure.py",
        "measure.py",
        "runs.py",
        "peers/__init__.py",
        "results/runs.json",
    ):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert names(tmp_path) == ["peers", "runs"]


@pytest.mark.parametrize("arguments", [[], [""], ["no-such-bench"], ["run"]])
def test_unknown_bench(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown name prints the known ones and returns exit code 2."""
    assert main(arguments) == 2
    assert "with one of:" in capsys.readouterr().err

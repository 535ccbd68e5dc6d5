"""Comparisons that are robust on a noisy machine, and a measurement of the disk they ran on."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Comparison:
    """Medians over the rounds. `ratio` is the median of each round's ours / peer, not the ratio of the medians."""

    ours: float
    peer: float
    ratio: float


def interleaved(ours: Callable[[], float], peer: Callable[[], float], rounds: int) -> Comparison:
    """Takes two measurements in turn; the one that goes first in a round goes second in the next.

    Args:
        ours: Runs Handrail's side once and returns the measurement, greater than zero.
        peer: Runs the peer's side once and returns the measurement.
        rounds: How many pairs to measure.
    """
    pairs = []
    for number in range(rounds):
        if number % 2:
            theirs = peer()
            pairs.append((ours(), theirs))
        else:
            mine = ours()
            pairs.append((mine, peer()))
    return Comparison(
        ours=median(mine for mine, _ in pairs),
        peer=median(theirs for _, theirs in pairs),
        ratio=median(mine / theirs for mine, theirs in pairs),
    )


def raw_fsync_ms(folder: Path, rounds: int = 50) -> float:
    """The median milliseconds of one 4 KiB append and fsync to a file in `folder`."""
    file = folder / "fsync.probe"
    times = []
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        for _ in range(rounds):
            start = time.perf_counter_ns()
            os.write(descriptor, bytes(4096))
            os.fsync(descriptor)
            times.append((time.perf_counter_ns() - start) / 1e6)
    finally:
        os.close(descriptor)
        file.unlink()
    return median(times)

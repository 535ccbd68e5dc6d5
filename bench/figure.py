"""One measured number, and how it is written to a file and shown in a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """`ours` and every peer's number in `unit`; `method` says how they were measured, in a sentence."""

    name: str
    ours: float
    unit: str
    better: Literal["higher", "lower"]
    method: str
    peers: Mapping[str, float] = field(default_factory=dict)


def as_json(figures: Sequence[Figure]) -> str:
    """The figures as the JSON document of a results file."""
    order = ("name", "ours", "peers", "unit", "better", "method")
    rows = [{key: asdict(figure)[key] for key in order} for figure in figures]
    return json.dumps({"figures": rows}, indent=2, ensure_ascii=False) + "\n"


def as_table(title: str, figures: Sequence[Figure]) -> Table:
    """A row for each figure, a column for each peer; a dash where a peer was not measured."""
    peers = list(dict.fromkeys(peer for figure in figures for peer in figure.peers))
    table = Table(title=title)
    for heading in ("figure", "ours", *peers, "unit", "better", "method"):
        table.add_column(heading, justify="right" if heading in ("ours", *peers) else "left")
    for figure in figures:
        theirs = [f"{figure.peers[peer]:,.4g}" if peer in figure.peers else "-" for peer in peers]
        table.add_row(figure.name, f"{figure.ours:,.4g}", *theirs, figure.unit, figure.better, figure.method)
    return table

"""What separates two eval runs, as Markdown for a pull request.

What users and models wrote stands in fenced blocks, where Markdown means nothing; a fence is longer than any in it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from handrail.kernel.money import show_usd
from handrail.kernel.text import format_duration, sanitize

from .alignment import Pair, Piece, Step
from .case_diff import Side
from .comparison import Close, Compared

_LINES = 80
_LONGEST = 400
_AROUND = 120


def apart(compared: Compared, close: Sequence[Close]) -> list[str]:
    """The sides in numbers, the prompt's own diff, then the cases in `close` with their outputs and steps."""
    left, right = compared.diff.before, compared.diff.after
    lines = [
        "### What changed",
        "",
        "| | baseline | candidate |",
        "| --- | --- | --- |",
        f"| cost of one round | {show_usd(left.cost)} | {show_usd(right.cost)} |",
        f"| latency, median and 95th percentile | {latency(left)} | {latency(right)} |",
        "",
    ]
    if compared.prompt:
        lines += _folded("The prompt", compared.prompt[2:])
    for each in close:
        before, after = (f"{100 * value:.0f}%" for value in (each.case.before, each.case.after))
        lines += _folded(f"{each.case.case_id}: {before} to {after}", [*_outputs(each.output), *_steps(each)])
    return lines


def said(step: Step) -> str:
    """A step on one line."""
    if step.kind == "model":
        turn = step.gave if isinstance(step.gave, list) else []
        parts = ["model:", *(_called(each) if isinstance(each, dict) else _short(each) for each in turn)]
    else:
        parts = [f"{step.name}({_short(step.asked)})", "->", _short(step.gave)]
    return sanitize(" ".join([*parts, *([f"! {step.error}"] if step.error else [])]))


def _called(call: Mapping[str, Any]) -> str:
    return f"calls {call.get('call')}({_short(call.get('arguments'))})"


def _short(value: Any) -> str:
    text = (
        value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    )
    line = " ".join(text.split())
    return line if len(line) <= _AROUND else f"{line[: _AROUND - 1]}…"


def latency(side: Side) -> str:
    """Median and 95th percentile."""
    return " / ".join(format_duration(each) for each in (side.median_ns, side.p95_ns))


def _outputs(pieces: Sequence[Piece]) -> list[str]:
    before = "".join(piece.text for piece in pieces if piece.kind != "added")
    after = "".join(piece.text for piece in pieces if piece.kind != "removed")
    if before == after:
        return [f"  {line}" for line in before.splitlines()]
    return [f"- {line}" for line in before.splitlines()] + [f"+ {line}" for line in after.splitlines()]


def _steps(close: Close) -> list[str]:
    trajectory = close.trajectory
    if trajectory.diverges_at is None:
        return []
    same = f"@@ the first {trajectory.diverges_at} steps are the same @@" if trajectory.diverges_at else "@@ steps @@"
    return [same, *(line for pair in trajectory.pairs[trajectory.diverges_at :] for line in _pair(pair))]


def _pair(pair: Pair) -> list[str]:
    if pair.fit == "same" and pair.after is not None:
        return [f"  {said(pair.after)}"]
    return [f"{mark} {said(step)}" for mark, step in (("-", pair.before), ("+", pair.after)) if step is not None]


def _folded(title: str, content: Iterable[str]) -> list[str]:
    every = [_cut(part) for line in content for part in line.splitlines() or [""]]
    lines = every[:_LINES] + ([f"and {len(every) - _LINES} lines more"] if len(every) > _LINES else [])
    fence = "`" * (1 + max(2, *(len(run) for line in lines for run in re.findall("`+", line)), 0))
    summary = sanitize(title).replace("&", "&amp;").replace("<", "&lt;")
    return [f"<details><summary>{summary}</summary>", "", f"{fence}diff", *lines, fence, "", "</details>", ""]


def _cut(line: str) -> str:
    shown = sanitize(line)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"

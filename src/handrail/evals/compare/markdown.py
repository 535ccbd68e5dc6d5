"""How two eval runs differ, as Markdown for a pull request.

Text from users and models is put in fenced blocks, where Markdown has no effect; a fence is longer than any in it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from handrail.kernel.money import format_usd
from handrail.kernel.text import format_duration, format_json, sanitize, shorten

from .alignment import StepPair, TextPiece, TrajectoryStep
from .case_diff import EvalRunStats
from .comparison import CaseDetail, EvalRunComparison

_MAX_LINES = 80
_MAX_LINE_LENGTH = 400
_MAX_VALUE_LENGTH = 120


def format_comparison(comparison: EvalRunComparison, details: Sequence[CaseDetail]) -> list[str]:
    """Markdown lines: the figures of both eval runs, the diff of the prompt, then each case of `details`."""
    left, right = comparison.diff.before, comparison.diff.after
    lines = [
        "### What changed",
        "",
        "| | baseline | candidate |",
        "| --- | --- | --- |",
        f"| cost of one round | {format_usd(left.cost)} | {format_usd(right.cost)} |",
        f"| latency, median and 95th percentile | {format_latency(left)} | {format_latency(right)} |",
        "",
    ]
    if comparison.prompt:
        lines += _collapsible("The prompt", comparison.prompt[2:])
    for detail in details:
        before, after = (f"{100 * value:.0f}%" for value in (detail.case.before, detail.case.after))
        title = f"{detail.case.case_id}: {before} to {after}"
        lines += _collapsible(title, [*_output_lines(detail.output), *_step_lines(detail)])
    return lines


def format_step(step: TrajectoryStep) -> str:
    """A step on one line."""
    if step.kind == "model":
        turn = step.output if isinstance(step.output, list) else []
        parts = ["model:", *(_format_call(part) if isinstance(part, dict) else _short(part) for part in turn)]
    else:
        parts = [f"{step.name}({_short(step.input)})", "->", _short(step.output)]
    return sanitize(" ".join([*parts, *([f"! {step.error}"] if step.error else [])]))


def format_latency(stats: EvalRunStats) -> str:
    """Median and 95th percentile."""
    return " / ".join(format_duration(nanoseconds) for nanoseconds in (stats.median_ns, stats.p95_ns))


def _format_call(call: Mapping[str, Any]) -> str:
    return f"calls {call.get('call')}({_short(call.get('arguments'))})"


def _short(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else format_json(value)
    return shorten(text, _MAX_VALUE_LENGTH)


def _output_lines(pieces: Sequence[TextPiece]) -> list[str]:
    before = "".join(piece.text for piece in pieces if piece.kind != "added")
    after = "".join(piece.text for piece in pieces if piece.kind != "removed")
    if before == after:
        return [f"  {line}" for line in before.splitlines()]
    return [f"- {line}" for line in before.splitlines()] + [f"+ {line}" for line in after.splitlines()]


def _step_lines(detail: CaseDetail) -> list[str]:
    trajectory = detail.trajectory
    start = trajectory.diverges_at
    if start is None:
        return []
    heading = f"@@ the first {start} steps are the same @@" if start else "@@ steps @@"
    return [heading, *(line for pair in trajectory.pairs[start:] for line in _pair_lines(pair))]


def _pair_lines(pair: StepPair) -> list[str]:
    if pair.kind == "same" and pair.after is not None:
        return [f"  {format_step(pair.after)}"]
    return [f"{mark} {format_step(step)}" for mark, step in (("-", pair.before), ("+", pair.after)) if step is not None]


def _collapsible(title: str, content: Iterable[str]) -> list[str]:
    """A `<details>` element with its content in a fenced block."""
    every_line = [_cut(part) for line in content for part in line.splitlines() or [""]]
    lines = every_line[:_MAX_LINES]
    if len(every_line) > _MAX_LINES:
        lines.append(f"and {len(every_line) - _MAX_LINES} more lines")
    fence = "`" * (1 + max(2, *(len(run) for line in lines for run in re.findall("`+", line)), 0))
    summary = sanitize(title).replace("&", "&amp;").replace("<", "&lt;")
    return [f"<details><summary>{summary}</summary>", "", f"{fence}diff", *lines, fence, "", "</details>", ""]


def _cut(line: str) -> str:
    # Not `shorten`, which would remove the indentation and so the marks of the diff.
    shown = sanitize(line)
    return shown if len(shown) <= _MAX_LINE_LENGTH else f"{shown[: _MAX_LINE_LENGTH - 1]}…"

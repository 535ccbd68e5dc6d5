"""What the gate said, for a terminal, a pull request, a CI system and programs.

Whatever users and models wrote stands in it as text: in Markdown every mark is escaped, in XML every character that
may not be there is shown as a symbol.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from handrail.evals.eval_set.model import Case, EvalSet
from handrail.evals.mismatches import what_differed
from handrail.evals.store.eval_runs import Trial
from handrail.kernel.errors import BadInput, MissingExtra
from handrail.kernel.text import sanitize

from .decision_rule import GateVerdict
from .gate import Gated

_SHOWN = 20
_LONGEST = 300
_BAR = 40
_PLAIN = re.compile("[^a-zA-Z0-9 ,;\u00a0-\uffff]")


@dataclass(frozen=True)
class Moved:
    """A case whose score moved: before and after are the mean values of its trials, `run_id` is one that shows it."""

    case_id: str
    before: float
    after: float
    differed: str
    run_id: str


def failing(gated: Gated, loaded: EvalSet) -> list[Moved]:
    """The newly failing cases, furthest fallen first; of a block without any, the cases that lost most."""
    moved = [each for each in _moved(gated, loaded) if each.after < each.before]
    newly = [each for each in moved if each.case_id in gated.verdict.newly_failing]
    found = newly or ([] if gated.verdict.passed else moved)
    return sorted(found, key=lambda each: (each.after - each.before, each.case_id))[:_SHOWN]


def passing(gated: Gated, loaded: EvalSet) -> list[Moved]:
    """The newly passing cases; what differed is what was wrong before."""
    return [each for each in _moved(gated, loaded) if each.case_id in gated.verdict.newly_passing][:_SHOWN]


def says(verdict: GateVerdict) -> str:
    """The verdict in words, as a sentence."""
    text = str(verdict)
    return f"{text[0].upper()}{text[1:]}."


def as_json(gated: Gated) -> dict[str, Any]:
    """The verdict in numbers and in words, both fingerprints, the plan and the report."""
    numbers = {
        name: float(each) if isinstance(each, Fraction) else each for name, each in asdict(gated.verdict).items()
    }
    errors = {"error": gated.verdict.error, "population_error": gated.verdict.population_error}
    return {
        "verdict": {**numbers, **errors, "detectable": gated.verdict.detectable(gated.verdict.margin)},
        "says": str(gated.verdict),
        "baseline": gated.baseline,
        "agent_hash": gated.agent_hash,
        "plan": gated.plan,
        "distrusted": gated.distrusted,
        "report": gated.report,
    }


def markdown(gated: Gated, loaded: EvalSet, picture: Path | None = None, apart: Sequence[str] = ()) -> str:
    """A summary for a pull request: the verdict, the scores as bars, what moved, `apart`, what was compared."""
    verdict = gated.verdict
    lines = [
        f"## {'Passed' if verdict.passed else 'Blocked'}: {_text(gated.report.agent)}",
        "",
        _text(says(verdict)),
        "",
    ]
    lines += [f"![scores](<{picture}>)", ""] if picture else ["```", *bars(verdict), "```", ""]
    lines += _rows("Newly failing" if verdict.newly_failing else "Lost most", failing(gated, loaded))
    lines += _rows("Newly passing", passing(gated, loaded))
    lines += apart
    for name, reasons in gated.distrusted.items():
        lines += [_text(f"Judge {name} is not trusted, and passes nothing by itself: {'; '.join(reasons)}."), ""]
    for number in facts(gated):
        lines.append(f"- {_text(number)}")
    return "\n".join(lines) + "\n"


def facts(gated: Gated) -> list[str]:
    """What was compared, in lines."""
    base, verdict = gated.baseline, gated.verdict
    same = ", the same as the baseline's" if gated.agent_hash == base.agent_hash else ""
    made = f"{base.at:%Y-%m-%d}, by {base.by}"
    found = [
        f"Baseline: agent {short(base.agent_hash)}, {_trials(base.trials)}, {made}",
        f"Candidate: agent {short(gated.agent_hash)}{same}, {_trials(verdict.trials)}",
        f"Set {short(base.set_hash)}, {verdict.cases} cases; eval run {gated.report.eval_run_id}",
    ]
    if verdict.population_error is not None:
        low, high = (100 * (float(verdict.drop) + sign * 2 * verdict.population_error) for sign in (-1, 1))
        found.append(f"For cases like these and not these alone, the drop lies between {low:.1f} and {high:.1f} points")
    if gated.report.errors:
        found.append(f"{len(gated.report.errors)} trials left out: their model could not be asked")
    if gated.plan is not None:
        found.append(str(gated.plan))
    return found


def bars(verdict: GateVerdict) -> list[str]:
    """Both scores as bars of text."""
    sides = {"baseline": float(verdict.baseline), "candidate": float(verdict.candidate)}
    return [
        f"{name:<9} {'█' * round(_BAR * share)}{'░' * (_BAR - round(_BAR * share))} {100 * share:.1f}%"
        for name, share in sides.items()
    ]


def junit(gated: Gated, loaded: EvalSet) -> str:
    """JUnit XML: a test for the gate itself, and one for each case, which fails where it is newly failing."""
    verdict = gated.verdict
    broken = {each.case_id: each for each in failing(gated, loaded) if each.case_id in verdict.newly_failing}
    times = {each.case_id: each.duration_ns / 1e9 for each in gated.report.trials}
    suite = Xml.Element(
        "testsuite",
        name=f"handrail eval gate {gated.report.agent}",
        tests=str(1 + len(loaded.cases)),
        failures=str((not verdict.passed) + len(verdict.newly_failing)),
    )
    gate = Xml.SubElement(suite, "testcase", classname=gated.report.agent, name="gate")
    if not verdict.passed:
        Xml.SubElement(gate, "failure", message=_xml(says(verdict)))
    for case in loaded.cases:
        shown = Xml.SubElement(
            suite, "testcase", classname=gated.report.agent, name=case.id, time=f"{times.get(case.id, 0):.3f}"
        )
        if case.id in verdict.newly_failing:
            told = _xml(broken[case.id].differed) if case.id in broken else ""
            Xml.SubElement(shown, "failure", message=told or "newly failing")
    Xml.indent(suite)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(suite, encoding="unicode") + "\n"


def draw_chart(gated: Gated, file: Path) -> None:
    """Both scores as a picture, SVG or PNG by the file's suffix. Raises BadInput for another, MissingExtra."""
    if file.suffix not in (".svg", ".png"):
        raise BadInput(f"--chart {file}: name a file that ends in .svg or .png")
    try:
        import altair as alt
        import vl_convert
    except ImportError as error:
        raise MissingExtra("--chart", "server") from error
    verdict = gated.verdict
    spread = 200 * (verdict.error or 0)
    rows = [
        {"side": "baseline", "score": 100 * float(verdict.baseline), "low": None, "high": None},
        {
            "side": "candidate",
            "score": 100 * float(verdict.candidate),
            "low": max(0, 100 * float(verdict.candidate) - spread),
            "high": min(100, 100 * float(verdict.candidate) + spread),
        },
    ]
    side = alt.Y("side:N", title=None)
    base = alt.Chart({"values": rows}, width=420, height=70, title=says(verdict).partition(";")[0])
    colour = alt.value("#2f6f4f" if verdict.passed else "#b3413a")
    drawn = base.mark_bar(opacity=0.8).encode(
        x=alt.X("score:Q", title="score, %", scale=alt.Scale(domain=[0, 100])), y=side, color=colour
    ) + base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", y=side)
    spec = drawn.to_dict()
    found = (
        vl_convert.vegalite_to_svg(spec).encode()
        if file.suffix == ".svg"
        else vl_convert.vegalite_to_png(spec, scale=2)
    )
    file.write_bytes(found)


def short(fingerprint: str | None) -> str:
    """A fingerprint as people compare it."""
    return fingerprint[:12] if fingerprint else "unknown (no model was reached)"


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'} of each case"


def _moved(gated: Gated, loaded: EvalSet) -> list[Moved]:
    found = []
    for case in loaded.cases:
        old = [each for each in gated.before if each.case_id == case.id and each.error is None]
        new = [each for each in gated.report.trials if each.case_id == case.id and each.error is None]
        if not old or not new:
            continue
        before, after = (sum(each.value for each in side) / len(side) for side in (old, new))
        worse = min(new if after < before else old, key=lambda each: (each.value, each.trial))
        found.append(Moved(case.id, before, after, _differed(case, worse), worse.run_id))
    return found


def _differed(case: Case, trial: Trial) -> str:
    """What a trial got wrong: fields of the case as expected and found, others with what their scorer noted."""
    told = [what_differed(case.expect, trial)] if trial.verdict.fields.keys() <= case.expect.keys() else []
    for name, held in trial.verdict.fields.items():
        if not told and not held:
            told.append(f"{name} {trial.verdict.notes.get(f'{name}: why', '')}".strip())
    return ", ".join(told)


def _rows(title: str, moved: Sequence[Moved]) -> list[str]:
    if not moved:
        return []
    head = [f"### {title}", "", "| case | before | now | what differed | run |", "| --- | --- | --- | --- | --- |"]
    rows = [
        f"| {_text(each.case_id)} | {100 * each.before:.0f}% | {100 * each.after:.0f}% | "
        f"<code>{_text(each.differed)}</code> | {_text(each.run_id)} |"
        for each in moved
    ]
    return [*head, *rows, ""]


def _text(text: str) -> str:
    """Any text on one line of Markdown, none of it markup."""
    line = sanitize(" ".join(text.split()))
    cut = line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
    return _PLAIN.sub(lambda match: f"&#{ord(match[0])};" if ord(match[0]) < 128 else match[0], cut)


def _xml(text: str) -> str:
    return sanitize(" ".join(text.split())).encode("utf-8", "replace").decode()

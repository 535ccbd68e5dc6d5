"""Candidates for a set, drawn from what production was asked: at random with a seed, evenly over strata, redacted.

A candidate has no expectation yet. People complete it, blind to what the agent said, and `take` adds it to the set.
"""

import datetime as dt
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection

from handrail.evals.eval_set.lint import plain
from handrail.evals.eval_set.model import EvalSet, load_set
from handrail.evals.tenant import TENANT
from handrail.kernel.errors import BadInput
from handrail.runs.agent import GovernedAgent
from handrail.runs.runtime import Runtime
from handrail.runs.store.runs import RunView, list_runs, load_input
from handrail.traces.model import Span
from handrail.traces.recorder.redaction import Redact

from .pii import redact_text

Stratum = Literal["path", "outcome", "tenant", "none"]
WITHHELD = "withheld by the redaction"
_PAGE = 1_000

Clean: TypeAlias = Callable[[str], tuple[str | None, Mapping[str, int]]]
"""A text without what must not be kept (None where nothing of it may be), and how many of each kind were found."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A production run's input that may become a case.

    `of` runs of its stratum were there and `drawn` of them were taken, so its chance to be drawn was `drawn / of`.
    """

    run_id: str
    input: str
    stratum: str
    drawn: int
    of: int
    on: dt.date

    @property
    def source(self) -> str:
        return f"production run {self.run_id}, drawn on {self.on} ({self.stratum}: {self.drawn} of {self.of})"


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Candidates and where they came from: the runs looked at, those that could not be cases by reason, the finds."""

    candidates: tuple[Candidate, ...]
    looked_at: int
    left_out: Mapping[str, int]
    redacted: Mapping[str, int]
    redaction: str


def allot(sizes: Mapping[str, int], n: int) -> dict[str, int]:
    """How many of `n` to take from each stratum: as evenly as their sizes allow, so that rare ones are seen."""
    taken: dict[str, int] = {}
    left = n
    for place, name in enumerate(sorted(sizes, key=lambda each: (sizes[each], each))):
        # What the small ones cannot give is shared by those that come after them.
        taken[name] = min(sizes[name], left // (len(sizes) - place))
        left -= taken[name]
    return taken


def stratified(strata: Mapping[str, Sequence[str]], n: int, seed: int) -> dict[str, list[str]]:
    """`n` ids over the strata, at random within each; the same ids in any order give the same draw for a seed."""
    counts = allot({name: len(ids) for name, ids in strata.items()}, n)
    rng = random.Random(seed)  # noqa: S311 - a draw that can be repeated, not a secret
    return {name: sorted(rng.sample(sorted(strata[name]), counts[name])) for name in sorted(strata) if counts[name]}


async def draw(
    runtime: Runtime,
    agent: GovernedAgent[Any, Any],
    *,
    n: int,
    seed: int,
    stratify: Stratum = "path",
    newest: int = 10_000,
) -> Drawn:
    """`n` candidates from the agent's `newest` runs of production.

    Left out are runs that have not ended, whose input is not text, that are cases already, and inputs that were asked
    before. Texts go through the operator's own redaction (`redact` in handrail.toml), else the built-in one. Raises
    BadInput for an agent without a set, fewer candidates than one, and where no run is left to draw from.
    """
    if agent.trials is None:
        raise BadInput(f"agent {agent.name} has no eval set; pass `trials=Trials(cases=..., observe=...)` to govern()")
    if n < 1:
        raise BadInput(f"n: {n}; at least one candidate")
    loaded, now = load_set(agent.trials.cases), runtime.clock.now()
    runs = await runtime.database.read(lambda conn: _production(conn, agent.name, now, newest))
    texts = await runtime.database.read(lambda conn: {run.run_id: load_input(conn, run.run_id) for run in runs})
    strata, left_out = _sorted_out(runs, texts, loaded, stratify)
    if not strata:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items()) or "there are none yet"
        raise BadInput(f"agent {agent.name}: none of its newest runs can become a case ({reasons})")
    own = runtime.settings.redact
    clean: Clean = redact_text if own is None else _operators(runtime.telemetry.redact)
    candidates: list[Candidate] = []
    redacted: Counter[str] = Counter()
    for stratum, ids in stratified(strata, n, seed).items():
        for run_id in ids:
            text, found = clean(texts[run_id])
            redacted.update(found)
            if text is None or not text.strip():
                left_out[WITHHELD] += 1
                continue
            drawn, of = len(ids), len(strata[stratum])
            made = Candidate(run_id=run_id, input=text, stratum=stratum, drawn=drawn, of=of, on=now.date())
            candidates.append(made)
    return Drawn(
        candidates=tuple(candidates),
        looked_at=len(runs),
        left_out=left_out,
        redacted=redacted,
        redaction=own or "built-in",
    )


def _production(conn: Connection, agent: str, now: dt.datetime, newest: int) -> list[RunView]:
    found: list[RunView] = []
    before: str | None = None
    while len(found) < newest:
        page = list_runs(conn, now, tenant=None, agent=agent, limit=_PAGE, before=before)
        if not page:
            break
        found += [run for run in page if run.tenant != TENANT]
        before = page[-1].run_id
    return found[:newest]


def _sorted_out(
    runs: Sequence[RunView], texts: Mapping[str, Any], loaded: EvalSet, stratify: Stratum
) -> tuple[dict[str, list[str]], Counter[str]]:
    strata: dict[str, list[str]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    asked_before = {plain(case.input) for case in loaded.cases}
    for run in sorted(runs, key=lambda each: each.run_id):
        text = texts[run.run_id]
        if not isinstance(text, str) or not text.strip():
            left_out["no text"] += 1
        elif run.ended_at is None:
            left_out["not ended"] += 1
        elif plain(text) in asked_before:
            left_out["asked before, or a case already"] += 1
        else:
            asked_before.add(plain(text))
            strata[_stratum(run, stratify)].append(run.run_id)
    return dict(strata), left_out


def _stratum(run: RunView, stratify: Stratum) -> str:
    match stratify:
        case "path":
            return run.path or "waiting"
        case "outcome":
            return run.status
        case "tenant":
            return run.tenant
        case "none":
            return "all"


def _operators(redact: Redact) -> Clean:
    def clean(text: str) -> tuple[str | None, Mapping[str, int]]:
        span = Span(
            trace_id="",
            span_id="",
            parent_id=None,
            kind="agent",
            name="eval draw",
            start_ns=0,
            end_ns=0,
            tenant="",
            user="",
            agent="",
            run_id="",
            payload={"input": text},
        )
        kept = (redact(span).payload or {}).get("input")
        return (kept, {} if kept == text else {"changed": 1}) if isinstance(kept, str) else (None, {"withheld": 1})

    return clean

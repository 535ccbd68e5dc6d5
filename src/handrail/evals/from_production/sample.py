"""Candidates for an eval set, sampled from the inputs of production runs: stratified, seeded and redacted.

A candidate has no expectation yet. People fill it in without seeing what the agent answered, and `accept_candidates`
adds it to the eval set.
"""

import datetime as dt
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy import Connection

from handrail.evals.eval_set.lint import normalise_input
from handrail.evals.eval_set.model import EvalSet, load_eval_set
from handrail.evals.spec import EVALS_TENANT, EvalSpec
from handrail.kernel.db.operation import operation
from handrail.kernel.errors import BadInput
from handrail.runs.runtime import Runtime
from handrail.runs.store.queries import RunView, list_runs, load_input
from handrail.traces.model import Span
from handrail.traces.recorder.redaction import Redact

from .pii import redact_text

Stratum = Literal["path", "outcome", "tenant", "none"]
WITHHELD_REASON = "withheld by the redaction"
_PAGE_SIZE = 1_000

Redactor: TypeAlias = Callable[[str], tuple[str | None, Mapping[str, int]]]
"""Removes personal data from a text: returns the text (None when none of it may be kept) and counts by kind."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The input of a production run, which may become a case.

    Of the `stratum_runs` runs in its stratum, `stratum_sampled` were sampled: its probability of being sampled is their
    ratio.
    """

    run_id: str
    input: str
    stratum: str
    stratum_sampled: int
    stratum_runs: int
    sampled_on: dt.date

    @property
    def source(self) -> str:
        """The `source` of the case that it becomes."""
        share = f"{self.stratum}: {self.stratum_sampled} of {self.stratum_runs}"
        return f"production run {self.run_id}, drawn on {self.sampled_on} ({share})"


@dataclass(frozen=True, kw_only=True)
class CandidateSample:
    """A sample of candidates.

    `runs` is how many runs were considered, `left_out` how many could not become cases, by reason, and `redacted` how
    many pieces of personal data were removed, by kind. `redaction` names what removed them.
    """

    candidates: tuple[Candidate, ...]
    runs: int
    left_out: Mapping[str, int]
    redacted: Mapping[str, int]
    redaction: str


def allot(sizes: Mapping[str, int], n: int) -> dict[str, int]:
    """How many of `n` to take from each stratum: as equal as their sizes allow, so that rare ones are represented."""
    counts: dict[str, int] = {}
    left = n
    # From the smallest: what it cannot supply is shared by the larger ones after it.
    for index, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        counts[name] = min(sizes[name], left // (len(sizes) - index))
        left -= counts[name]
    return counts


def stratified(strata: Mapping[str, Sequence[str]], n: int, seed: int) -> dict[str, list[str]]:
    """Samples `n` ids over the strata, at random within each.

    Args:
        strata: The ids of each stratum; their order makes no difference.
        n: How many to sample.
        seed: The same seed gives the same sample.
    """
    counts = allot({name: len(ids) for name, ids in strata.items()}, n)
    rng = random.Random(seed)  # noqa: S311 - for sampling, not for security
    return {name: sorted(rng.sample(sorted(strata[name]), counts[name])) for name in sorted(strata) if counts[name]}


async def sample_candidates(
    runtime: Runtime,
    spec: EvalSpec[Any, Any],
    *,
    n: int,
    seed: int,
    stratify: Stratum = "path",
    newest: int = 10_000,
) -> CandidateSample:
    """Samples candidates from the agent's production runs.

    Left out are runs that have not ended, inputs that are not text, and inputs that are already a case or occurred
    before. Texts go through the operator's own redaction (`redact` in handrail.toml), or else the built-in one.

    Args:
        runtime: Where the runs are stored.
        spec: The eval spec of the agent.
        n: How many candidates to sample.
        seed: The same seed gives the same sample of the same runs.
        stratify: What the sample is spread equally over.
        newest: How many of the newest runs to sample from.

    Raises:
        BadInput: `n` is below 1, or none of the runs can become a case.
    """
    if n < 1:
        raise BadInput(f"n: {n}; sample at least one candidate")
    eval_set, now = load_eval_set(spec.cases), runtime.clock.now()
    runs = await runtime.database.read(_production_runs(spec.name, now, newest))
    texts = await runtime.database.read(lambda conn: {run.run_id: load_input(run.run_id)(conn) for run in runs})
    strata, left_out = _group(runs, texts, eval_set, stratify)
    if not strata:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in left_out.items()) or "there are none yet"
        raise BadInput(f"agent {spec.name}: none of its newest runs can become a case ({reasons})")
    redaction = runtime.settings.redact
    redact_input: Redactor = redact_text if redaction is None else _adapt_redaction(runtime.telemetry.redact)
    sampled = stratified(strata, n, seed)
    redacted, candidates = Counter[str](), list[Candidate]()
    for stratum, run_id in ((stratum, run_id) for stratum, ids in sampled.items() for run_id in ids):
        text, removed = redact_input(texts[run_id])
        redacted.update(removed)
        if text is None or not text.strip():
            left_out[WITHHELD_REASON] += 1
            continue
        drawn, of = len(sampled[stratum]), len(strata[stratum])
        candidates.append(
            Candidate(
                run_id=run_id,
                input=text,
                stratum=stratum,
                stratum_sampled=drawn,
                stratum_runs=of,
                sampled_on=now.date(),
            )
        )
    return CandidateSample(
        candidates=tuple(candidates),
        runs=len(runs),
        left_out=left_out,
        redacted=redacted,
        redaction=redaction or "built-in",
    )


@operation
def _production_runs(conn: Connection, agent: str, now: dt.datetime, newest: int) -> list[RunView]:
    runs: list[RunView] = []
    before: str | None = None
    while len(runs) < newest:
        page = list_runs(now, tenant=None, agent=agent, limit=_PAGE_SIZE, before=before)(conn)
        if not page:
            break
        runs += [run for run in page if run.tenant != EVALS_TENANT]
        before = page[-1].run_id
    return runs[:newest]


def _group(
    runs: Sequence[RunView], texts: Mapping[str, Any], eval_set: EvalSet, stratify: Stratum
) -> tuple[dict[str, list[str]], Counter[str]]:
    """The ids of the runs that can become cases, by stratum, and how many cannot, by reason."""
    strata: dict[str, list[str]] = defaultdict(list)
    left_out: Counter[str] = Counter()
    known = {normalise_input(case.input) for case in eval_set.cases}
    for run in sorted(runs, key=lambda run: run.run_id):
        text = texts[run.run_id]
        if not isinstance(text, str) or not text.strip():
            left_out["no text"] += 1
        elif run.ended_at is None:
            left_out["not ended"] += 1
        elif normalise_input(text) in known:
            left_out["asked before, or a case already"] += 1
        else:
            known.add(normalise_input(text))
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


def _adapt_redaction(redact: Redact) -> Redactor:
    """The operator's redaction for a text, which is passed to it as the payload of a span."""

    def redact_input(text: str) -> tuple[str | None, Mapping[str, int]]:
        span = Span(
            trace_id="",
            span_id="",
            parent_id=None,
            kind="agent",
            name="eval sample",
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

    return redact_input

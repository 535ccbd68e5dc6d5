"""How few traces make most of the cost, and what is different about them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from handrail.kernel.money import NanoUsd
from handrail.traces.model import Span

MOST = Fraction(80, 100)
"""The part of the cost that is asked for."""
SUPPORT = Fraction(1, 10)
"""The least part of the dear traces that a difference must be seen in."""
EXPLAINS = Fraction(5, 100)
"""The least part of the extra cost that a difference must go with."""

Aspect = Literal[
    "step", "steps", "model", "tenant", "user", "agent", "fingerprint", "prompt", "retries", "errors", "tokens"
]
_WHOSE = frozenset({"model", "tenant", "user", "agent", "fingerprint", "prompt"})
_PROMPT = "gen_ai.prompt.name"
_PROMPT_VERSION = "gen_ai.prompt.version"


@dataclass(frozen=True, kw_only=True)
class Few:
    """The dearest `count` of `of` traces cost `cost` of `total`: the fewest that make the part asked for."""

    count: int
    of: int
    cost: NanoUsd
    total: NanoUsd

    @property
    def share(self) -> Fraction:
        """The dear traces' part of all traces."""
        return Fraction(self.count, self.of or 1)

    @property
    def cost_share(self) -> Fraction:
        """The dear traces' part of the cost."""
        return Fraction(self.cost, self.total or 1)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Something that dear traces have more of than the rest.

    `dear` and `rest` are means per trace: of how often it is there, or how many tokens. Where it is there once or not
    at all they are shares of traces. `explains` is the part of the extra cost that goes with it, 0 to 1: what a trace
    costs more per unit of it (least squares over all traces), times how much more of it the dear ones have. Differences
    that come together explain the same cost, and what goes with it need not cause it.
    """

    aspect: Aspect
    name: str
    dear: Fraction
    rest: Fraction
    explains: Fraction

    @property
    def times(self) -> Fraction | None:
        """How much more of it the dear ones have; None where the rest has none at all."""
        return self.dear / self.rest if self.rest else None

    def __str__(self) -> str:
        often = "only there" if self.times is None else f"{_number(self.times)} times as much"
        return f"{self._says()} ({often}); it goes with {_percent(self.explains)} of the extra cost"

    def _says(self) -> str:
        if self.aspect in _WHOSE:
            return f"{self.aspect} {self.name}: {_percent(self.dear)} of them, {_percent(self.rest)} of the rest"
        if self.aspect == "step":
            return f"{self.name} ran in {_percent(self.dear)} of them, in {_percent(self.rest)} of the rest"
        return f"{self.name}: {_number(self.dear)} in each of them, {_number(self.rest)} in each of the rest"


def dearest(costs: Iterable[NanoUsd], most: Fraction = MOST) -> Few:
    """The fewest that make `most` of the sum; exact, in whole nano-dollars."""
    ordered = sorted(costs, reverse=True)
    total, cost, count = sum(ordered), 0, 0
    while cost < most * total:
        cost += ordered[count]
        count += 1
    return Few(count=count, of=len(ordered), cost=NanoUsd(cost), total=NanoUsd(total))


def differences(dear: Sequence[Sequence[Span]], rest: Sequence[Sequence[Span]]) -> list[Difference]:
    """What sets the dear traces apart from the rest, what explains most of the extra cost first; exact.

    Nothing that is in less than a tenth of the dear traces, or goes with less than a twentieth of the extra cost.
    """
    if not dear or not rest:
        return []
    rows = [(_facts(spans), sum(span.cost for span in spans)) for spans in (*dear, *rest)]
    extra = _mean([cost for _, cost in rows[: len(dear)]]) - _mean([cost for _, cost in rows[len(dear) :]])
    if extra <= 0:
        return []
    found = [
        each
        for aspect, name in sorted({key for facts, _ in rows[: len(dear)] for key in facts})
        if (each := _difference(aspect, name, rows, len(dear), extra))
    ]
    best: dict[tuple[bool, str], Difference] = {}
    for each in sorted(found, key=_order):
        # That a step is there and how often it is are one difference, told in the way that explains more.
        same = (each.aspect in ("step", "steps"), f"{each.aspect * (each.aspect in _WHOSE)} {each.name}")
        best.setdefault(same, each)
    return list(best.values())


_Facts = Mapping[tuple[Aspect, str], int]


def _facts(spans: Sequence[Span]) -> _Facts:
    """What one trace has how much of."""
    found: Counter[tuple[Aspect, str]] = Counter()
    for span in spans:
        if span.kind not in ("wait", "agent"):
            found["steps", span.name] += 1
            found["step", span.name] = 1
        named: dict[Aspect, str | None] = {
            "model": span.model,
            "tenant": span.tenant,
            "user": span.user,
            "agent": span.agent,
            "fingerprint": span.fingerprint and span.fingerprint[:12],
            "prompt": _prompt(span),
        }
        found.update(dict.fromkeys(((aspect, name) for aspect, name in named.items() if name), 0))
        found["retries", "retries"] += span.attempt > 1 or span.retry_of is not None
        found["errors", "failed spans"] += span.error_type is not None
        usage = span.usage
        found["tokens", "input tokens from the cache"] += usage.cache_read
        found["tokens", "input tokens not from the cache"] += usage.input - usage.cache_read
        found["tokens", "output tokens"] += usage.output
    return {key: 1 if key[0] in _WHOSE else count for key, count in found.items() if count or key[0] in _WHOSE}


def _prompt(span: Span) -> str | None:
    name = span.attributes.get(_PROMPT)
    version = span.attributes.get(_PROMPT_VERSION)
    return None if name is None else f"{name} {version}" if version is not None else str(name)


def _difference(
    aspect: Aspect, name: str, rows: Sequence[tuple[_Facts, int]], dear: int, extra: Fraction
) -> Difference | None:
    amounts = [facts.get((aspect, name), 0) for facts, _ in rows]
    more, less = _mean(amounts[:dear]), _mean(amounts[dear:])
    seen = sum(amount > 0 for amount in amounts[:dear])
    if more <= less or seen < SUPPORT * dear or seen < min(2, dear):
        return None
    explains = min(Fraction(1), _slope(amounts, [cost for _, cost in rows]) * (more - less) / extra)
    if explains < EXPLAINS:
        return None
    return Difference(aspect=aspect, name=name, dear=more, rest=less, explains=explains)


def _slope(amounts: Sequence[int], costs: Sequence[int]) -> Fraction:
    """What a trace costs more for each one more, by least squares."""
    count, total = len(amounts), sum(amounts)
    spread = count * sum(amount * amount for amount in amounts) - total * total
    together = count * sum(amount * cost for amount, cost in zip(amounts, costs, strict=True)) - total * sum(costs)
    return Fraction(together, spread)


def _order(each: Difference) -> tuple[Fraction, bool, Fraction, str, str]:
    times = each.times
    return -each.explains, times is not None, -(times or Fraction()), each.aspect, each.name


def _mean(values: Sequence[int]) -> Fraction:
    return Fraction(sum(values), len(values))


def _percent(share: Fraction) -> str:
    return f"{100 * float(share):.0f}%"


def _number(value: Fraction) -> str:
    return f"{float(value):,.0f}" if value >= 10 else f"{float(value):.1f}"

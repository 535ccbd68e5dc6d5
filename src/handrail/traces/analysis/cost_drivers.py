"""Finds the few traces that make up most of the cost, and how they differ from the rest."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from handrail.kernel.money import NanoUsd
from handrail.traces import semconv
from handrail.traces.model import Span

COST_SHARE = Fraction(80, 100)
"""The share of the total cost that defines the expensive traces: the fewest that make it up."""
MIN_SUPPORT = Fraction(1, 10)
"""The least share of the expensive traces that a cost driver must occur in."""
MIN_EXPLAINED = Fraction(5, 100)
"""The least share of the extra cost that a cost driver must explain."""

Aspect = Literal[
    "step", "steps", "model", "tenant", "user", "agent", "fingerprint", "prompt", "retries", "errors", "tokens"
]
_GROUPS = frozenset({"model", "tenant", "user", "agent", "fingerprint", "prompt"})


@dataclass(frozen=True, kw_only=True)
class CostConcentration:
    """The fewest traces that make up a share of the cost: `traces` of `total_traces` cost `cost` of `total_cost`."""

    traces: int
    total_traces: int
    cost: NanoUsd
    total_cost: NanoUsd

    @property
    def share(self) -> Fraction:
        """The expensive traces' share of all traces."""
        return Fraction(self.traces, self.total_traces or 1)

    @property
    def cost_share(self) -> Fraction:
        """The expensive traces' share of the cost."""
        return Fraction(self.cost, self.total_cost or 1)


@dataclass(frozen=True, kw_only=True)
class CostDriver:
    """Something that expensive traces have more of than the rest.

    `expensive` and `rest` are means per trace: how often it occurs, or how many tokens. For what a trace has once or
    not at all they are shares of traces. `explains` is the share of the extra cost that is associated with it, 0 to 1:
    the additional cost per unit (least squares over all traces) times the difference of the means. Cost drivers that
    occur together explain the same cost, and association is not cause.
    """

    aspect: Aspect
    name: str
    expensive: Fraction
    rest: Fraction
    explains: Fraction

    @property
    def times(self) -> Fraction | None:
        """The ratio of the means; None if the rest has none of it."""
        return self.expensive / self.rest if self.rest else None

    def __str__(self) -> str:
        ratio = "only in these" if self.times is None else f"{_number(self.times)} times as much"
        return f"{self._comparison()} ({ratio}); associated with {_percent(self.explains)} of the extra cost"

    def _comparison(self) -> str:
        if self.aspect in _GROUPS:
            return f"{self.aspect} {self.name}: {_percent(self.expensive)} of these, {_percent(self.rest)} of the rest"
        if self.aspect == "step":
            return f"{self.name} ran in {_percent(self.expensive)} of these, in {_percent(self.rest)} of the rest"
        return f"{self.name}: {_number(self.expensive)} per trace, {_number(self.rest)} in the rest"


def most_expensive(costs: Iterable[NanoUsd], share: Fraction = COST_SHARE) -> CostConcentration:
    """The fewest traces that make up `share` of the total cost; exact, in whole nano-dollars."""
    ordered = sorted(costs, reverse=True)
    total, cost, count = sum(ordered), 0, 0
    while cost < share * total:
        cost += ordered[count]
        count += 1
    return CostConcentration(traces=count, total_traces=len(ordered), cost=NanoUsd(cost), total_cost=NanoUsd(total))


def find_cost_drivers(expensive: Sequence[Sequence[Span]], rest: Sequence[Sequence[Span]]) -> list[CostDriver]:
    """How expensive traces differ from the rest.

    Args:
        expensive: The spans of each expensive trace.
        rest: The spans of each other trace.

    Returns:
        The cost drivers, those that explain most of the extra cost first.
    """
    if not expensive or not rest:
        return []
    rows = [(_facts(spans), sum(span.cost for span in spans)) for spans in (*expensive, *rest)]
    extra = _mean([cost for _, cost in rows[: len(expensive)]]) - _mean([cost for _, cost in rows[len(expensive) :]])
    if extra <= 0:
        return []
    drivers = [
        driver
        for aspect, name in sorted({key for facts, _ in rows[: len(expensive)] for key in facts})
        if (driver := _driver(aspect, name, rows, len(expensive), extra))
    ]
    best: dict[tuple[bool, str], CostDriver] = {}
    for driver in sorted(drivers, key=_order):
        # Whether a step runs and how often are one cost driver; the one that explains more is kept.
        identity = (driver.aspect in ("step", "steps"), f"{driver.aspect * (driver.aspect in _GROUPS)} {driver.name}")
        best.setdefault(identity, driver)
    return list(best.values())


_Facts = Mapping[tuple[Aspect, str], int]


def _facts(spans: Sequence[Span]) -> _Facts:
    """How much one trace has of each thing that may drive its cost."""
    amounts: Counter[tuple[Aspect, str]] = Counter()
    for span in spans:
        if span.kind not in ("wait", "agent"):
            amounts["steps", span.name] += 1
            amounts["step", span.name] = 1
        named: dict[Aspect, str | None] = {
            "model": span.model,
            "tenant": span.tenant,
            "user": span.user,
            "agent": span.agent,
            "fingerprint": span.fingerprint and span.fingerprint[:12],
            "prompt": _prompt(span),
        }
        amounts.update(dict.fromkeys(((aspect, name) for aspect, name in named.items() if name), 0))
        amounts["retries", "retries"] += span.attempt > 1 or span.retry_of is not None
        amounts["errors", "failed spans"] += span.error_type is not None
        usage = span.usage
        amounts["tokens", "input tokens from the cache"] += usage.cache_read
        amounts["tokens", "input tokens not from the cache"] += usage.input - usage.cache_read
        amounts["tokens", "output tokens"] += usage.output
    return {key: 1 if key[0] in _GROUPS else count for key, count in amounts.items() if count or key[0] in _GROUPS}


def _prompt(span: Span) -> str | None:
    name = span.attributes.get(semconv.PROMPT)
    version = span.attributes.get(semconv.PROMPT_VERSION)
    return None if name is None else f"{name} {version}" if version is not None else str(name)


def _driver(
    aspect: Aspect, name: str, rows: Sequence[tuple[_Facts, int]], expensive: int, extra: Fraction
) -> CostDriver | None:
    amounts = [facts.get((aspect, name), 0) for facts, _ in rows]
    expensive_mean, rest_mean = _mean(amounts[:expensive]), _mean(amounts[expensive:])
    support = sum(amount > 0 for amount in amounts[:expensive])
    if expensive_mean <= rest_mean or support < MIN_SUPPORT * expensive or support < min(2, expensive):
        return None
    slope = _slope(amounts, [cost for _, cost in rows])
    explains = min(Fraction(1), slope * (expensive_mean - rest_mean) / extra)
    if explains < MIN_EXPLAINED:
        return None
    return CostDriver(aspect=aspect, name=name, expensive=expensive_mean, rest=rest_mean, explains=explains)


def _slope(amounts: Sequence[int], costs: Sequence[int]) -> Fraction:
    """The additional cost of a trace for each additional unit, by least squares."""
    count, total = len(amounts), sum(amounts)
    variance = count * sum(amount * amount for amount in amounts) - total * total
    covariance = count * sum(amount * cost for amount, cost in zip(amounts, costs, strict=True)) - total * sum(costs)
    return Fraction(covariance, variance)


def _order(driver: CostDriver) -> tuple[Fraction, bool, Fraction, str, str]:
    times = driver.times
    return -driver.explains, times is not None, -(times or Fraction()), driver.aspect, driver.name


def _mean(values: Sequence[int]) -> Fraction:
    return Fraction(sum(values), len(values))


def _percent(share: Fraction) -> str:
    return f"{100 * float(share):.0f}%"


def _number(value: Fraction) -> str:
    return f"{float(value):,.0f}" if value >= 10 else f"{float(value):.1f}"

"""Charts as SVG, drawn on the server: Altair builds the specification, vl-convert renders it, in some 50 ms.

The colours are the style sheet's variables, so that one drawing fits the light and the dark theme.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from markupsafe import Markup

from handrail.kernel.clock import Clock
from handrail.kernel.forks import ForkSafePool

_CACHE_SIZE = 200
_MAX_AGE_NS = 60 * 10**9
_WIDTH, _HEIGHT = 460, 130

Row = Mapping[str, Any]


class ChartRenderer:
    """Renders charts, and caches them for a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._cache: OrderedDict[Hashable, tuple[int, Markup]] = OrderedDict()
        self._executor = ForkSafePool(max_workers=1, thread_name_prefix="handrail-charts")

    async def render(self, key: Hashable, build: Callable[[], dict[str, Any]]) -> Markup:
        """The SVG of a chart.

        Args:
            key: Identifies what the chart shows, for the cache.
            build: Makes its Vega-Lite specification.
        """
        now_ns = self._clock.monotonic_ns()
        if (cached := self._cache.get(key)) and now_ns - cached[0] < _MAX_AGE_NS:
            return cached[1]
        svg = await asyncio.get_running_loop().run_in_executor(self._executor, _svg, build)
        self._cache[key] = (now_ns, svg)
        if len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)
        return svg


@dataclass(frozen=True, kw_only=True)
class TimeAxis:
    """The axes of a chart over time.

    Attributes:
        since: Where the time axis begins.
        until: Where it ends.
        interval: The length of a bucket.
        title: What the values are.
        number_format: How values are written, in d3-format's language.
    """

    since: datetime
    until: datetime
    interval: timedelta
    title: str
    number_format: str = "~s"


def stacked_bars(axis: TimeAxis, rows: Sequence[Row], series: Sequence[str]) -> dict[str, Any]:
    """Bars over time, stacked by series.

    Args:
        axis: The axes.
        rows: Each has `at`, `series`, `rank` (its order in the stack) and `value`.
        series: The names of the series, which are also their colours: variables of the style sheet.
    """
    import altair as alt

    scale = alt.Scale(domain=list(series), range=[f"var(--{name})" for name in series])
    legend = alt.Legend(orient="top", symbolType="square")
    return _spec(
        _bars(alt, axis, rows).encode(
            color=alt.Color("series:N", title=None, scale=scale, legend=legend), order="rank:Q"
        )
    )


def lines(axis: TimeAxis, rows: Sequence[Row], series: Sequence[str]) -> dict[str, Any]:
    """A line over time for each series.

    Args:
        axis: The axes.
        rows: Each has `at`, `series` and `value`.
        series: The names of the series, in the order of their colours.
    """
    import altair as alt

    scale = alt.Scale(domain=list(series), range=[f"var(--line-{n})" for n in range(1, len(series) + 1)])
    legend = alt.Legend(orient="top", symbolType="stroke")
    chart = _over_time(alt, axis, rows).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=18))
    return _spec(chart.encode(color=alt.Color("series:N", title=None, scale=scale, legend=legend)))


def bars(axis: TimeAxis, rows: Sequence[Row], colour: str) -> dict[str, Any]:
    """Bars over time.

    Args:
        axis: The axes.
        rows: Each has `at` and `value`.
        colour: A variable of the style sheet.
    """
    import altair as alt

    return _spec(_bars(alt, axis, rows).encode(color=alt.value(f"var(--{colour})")))


def score_chart(points: Sequence[Row], colours: Mapping[str, str]) -> dict[str, Any]:
    """Scores over time with error bars, in the colour of their fingerprint.

    Args:
        points: Each has `at`, `series`, and in percent `value`, `low` and `high`.
        colours: The style sheet's variable of each series.
    """
    import altair as alt

    values = [{**row, "at": _iso(row["at"])} for row in points]
    time = alt.Axis(grid=False, tickCount=8, labelOverlap=True, format="%d %b %H:%M")
    scale = alt.Scale(domain=list(colours), range=[f"var(--{name})" for name in colours.values()])
    legend = alt.Legend(orient="top", symbolType="circle")
    base = alt.Chart(alt.InlineData(values), width=2 * _WIDTH, height=_HEIGHT).encode(
        x=alt.X("at:T", title=None, scale=alt.Scale(type="utc", padding=12), axis=time)
    )
    y = alt.Y("value:Q", title="%", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=4))
    colour = alt.Color("series:N", title=None, scale=scale, legend=legend)
    return _spec(
        alt.layer(
            base.mark_line(strokeWidth=1, opacity=0.5).encode(y=y, color=alt.value("var(--quiet)")),
            base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q"), y2="high:Q", color=colour),
            base.mark_point(filled=True, size=45, opacity=1).encode(y=y, color=colour),
        )
    )


def _bars(alt: Any, axis: TimeAxis, rows: Sequence[Row]) -> Any:
    buckets = (axis.until - axis.since) / axis.interval
    return _over_time(alt, axis, rows).mark_bar(size=max(2, min(26, 0.75 * _WIDTH / buckets)))


def _over_time(alt: Any, axis: TimeAxis, rows: Sequence[Row]) -> Any:
    """A chart with each value in the middle of its bucket."""
    middle = axis.interval / 2
    values = [{**row, "at": _iso(row["at"] + middle)} for row in rows]
    by_hour = axis.interval < timedelta(days=1)
    time = alt.Axis(grid=False, tickCount=6, labelOverlap=True, format="%H:%M" if by_hour else "%d %b")
    domain = [_iso(axis.since), _iso(axis.until)]
    return alt.Chart(alt.Data(values=values), width=_WIDTH, height=_HEIGHT).encode(
        x=alt.X("at:T", title=None, scale=alt.Scale(type="utc", domain=domain), axis=time),
        y=alt.Y("value:Q", title=axis.title, axis=alt.Axis(tickCount=4, format=axis.number_format)),
    )


def _iso(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _spec(chart: Any) -> dict[str, Any]:
    text, line = "currentColor", "var(--rule)"
    spec: dict[str, Any] = (
        chart.configure(background="transparent", font="sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=text, titleColor=text, gridColor=line, domainColor=line, tickColor=line, titleFontWeight="normal"
        )
        .configure_legend(labelColor=text)
        .to_dict()
    )
    return spec


def _svg(build: Callable[[], dict[str, Any]]) -> Markup:
    import vl_convert

    # Safe to mark as markup: Vega escapes every text, and what users wrote enters a chart as text only.
    return Markup(vl_convert.vegalite_to_svg(build()))  # noqa: S704

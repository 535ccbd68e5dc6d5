"""Charts as SVG, drawn on the server: Altair says what, vl-convert draws it, in some 50 ms.

The colours are the style sheet's variables, so one drawing is right in the light and in the dark.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from markupsafe import Markup

from handrail.kernel.clock import Clock

_KEPT = 200
_FRESH_NS = 60 * 10**9
_WIDTH, _HEIGHT = 460, 130

Row = Mapping[str, Any]


class Charts:
    """Draws, and keeps what it drew for a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[Hashable, tuple[int, Markup]] = OrderedDict()
        self._drawing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="handrail-charts")

    async def drawn(self, key: Hashable, draw: Callable[[], dict[str, Any]]) -> Markup:
        """The SVG of the Vega-Lite specification that `draw` makes; `key` says which data it is of."""
        now_ns = self._clock.monotonic_ns()
        if (kept := self._kept.get(key)) and now_ns - kept[0] < _FRESH_NS:
            return kept[1]
        svg = await asyncio.get_running_loop().run_in_executor(self._drawing, _svg, draw)
        self._kept[key] = (now_ns, svg)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return svg


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The axes of a chart over time: from when to when, the length of a stretch, and what the values are."""

    since: datetime
    until: datetime
    every: timedelta
    title: str
    form: str = "~s"
    """How values are written, in d3-format's language."""


def stacked(frame: Frame, rows: Sequence[Row], order: Sequence[str]) -> dict[str, Any]:
    """Bars over time, stacked by `part`, each in the colour of its name: a row has `at`, `part`, `rank` and `value`."""
    import altair as alt

    scale = alt.Scale(domain=list(order), range=[f"var(--{part})" for part in order])
    legend = alt.Legend(orient="top", symbolType="square")
    return _spec(
        _bars(alt, frame, rows).encode(
            color=alt.Color("part:N", title=None, scale=scale, legend=legend), order="rank:Q"
        )
    )


def lines(frame: Frame, rows: Sequence[Row], order: Sequence[str]) -> dict[str, Any]:
    """A line over time for each `part`: a row has `at`, `part` and `value`."""
    import altair as alt

    scale = alt.Scale(domain=list(order), range=[f"var(--line-{n})" for n in range(1, len(order) + 1)])
    legend = alt.Legend(orient="top", symbolType="stroke")
    chart = _over_time(alt, frame, rows).mark_line(strokeWidth=2, point=alt.OverlayMarkDef(size=18))
    return _spec(chart.encode(color=alt.Color("part:N", title=None, scale=scale, legend=legend)))


def bars(frame: Frame, rows: Sequence[Row], colour: str) -> dict[str, Any]:
    """Bars over time in one colour, a variable of the style sheet: a row has `at` and `value`."""
    import altair as alt

    return _spec(_bars(alt, frame, rows).encode(color=alt.value(f"var(--{colour})")))


def scores(points: Sequence[Row], colours: Mapping[str, str]) -> dict[str, Any]:
    """Scores in percent over time, each with its error, in the colour of its fingerprint.

    A point has `at`, `value`, `low` and `high` and `part`; `colours` has the style sheet's variable for each part.
    """
    import altair as alt

    values = [{**row, "at": _iso(row["at"])} for row in points]
    time = alt.Axis(grid=False, tickCount=8, labelOverlap=True, format="%d %b %H:%M")
    scale = alt.Scale(domain=list(colours), range=[f"var(--{name})" for name in colours.values()])
    legend = alt.Legend(orient="top", symbolType="circle")
    chart = alt.Chart(alt.InlineData(values), width=2 * _WIDTH, height=_HEIGHT).encode(
        x=alt.X("at:T", title=None, scale=alt.Scale(type="utc", padding=12), axis=time)
    )
    y = alt.Y("value:Q", title="%", scale=alt.Scale(domain=[0, 100]), axis=alt.Axis(tickCount=4))
    coloured = alt.Color("part:N", title=None, scale=scale, legend=legend)
    return _spec(
        alt.layer(
            chart.mark_line(strokeWidth=1, opacity=0.5).encode(y=y, color=alt.value("var(--quiet)")),
            chart.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q"), y2="high:Q", color=coloured),
            chart.mark_point(filled=True, size=45, opacity=1).encode(y=y, color=coloured),
        )
    )


def _bars(alt: Any, frame: Frame, rows: Sequence[Row]) -> Any:
    stretches = (frame.until - frame.since) / frame.every
    return _over_time(alt, frame, rows).mark_bar(size=max(2, min(26, 0.75 * _WIDTH / stretches)))


def _over_time(alt: Any, frame: Frame, rows: Sequence[Row]) -> Any:
    """A stretch's values stand in its middle."""
    middle = frame.every / 2
    values = [{**row, "at": _iso(row["at"] + middle)} for row in rows]
    by_hour = frame.every < timedelta(days=1)
    time = alt.Axis(grid=False, tickCount=6, labelOverlap=True, format="%H:%M" if by_hour else "%d %b")
    domain = [_iso(frame.since), _iso(frame.until)]
    return alt.Chart(alt.Data(values=values), width=_WIDTH, height=_HEIGHT).encode(
        x=alt.X("at:T", title=None, scale=alt.Scale(type="utc", domain=domain), axis=time),
        y=alt.Y("value:Q", title=frame.title, axis=alt.Axis(tickCount=4, format=frame.form)),
    )


def _iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _spec(chart: Any) -> dict[str, Any]:
    text, line = "currentColor", "var(--rule)"
    made: dict[str, Any] = (
        chart.configure(background="transparent", font="sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=text, titleColor=text, gridColor=line, domainColor=line, tickColor=line, titleFontWeight="normal"
        )
        .configure_legend(labelColor=text)
        .to_dict()
    )
    return made


def _svg(draw: Callable[[], dict[str, Any]]) -> Markup:
    import vl_convert

    # Vega writes every text of ours as XML text; nothing of a user stands in a chart but as such.
    return Markup(vl_convert.vegalite_to_svg(draw()))  # noqa: S704

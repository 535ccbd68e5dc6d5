"""The overview: how runs end, what they cost, how long they take, what fails."""

from functools import partial

from fastapi import APIRouter
from markupsafe import Markup
from starlette.responses import Response

from handrail.runs.outcome import PATHS
from handrail.server.charts import TimeAxis, bars, lines, stacked_bars
from handrail.server.queries import OverviewData
from handrail.server.time_ranges import RANGES, RangeQuery, TimeRange, time_range
from handrail.server.view_models.overview import PERCENTILES, error_rows, latency_rows, path_rows, spend_rows

from .context import Page, PageContext

router = APIRouter(include_in_schema=False)


@router.get("/")
async def show_overview(page: Page, range_: RangeQuery = "24h") -> Response:
    """The overview of a range."""
    period = time_range(range_, page.state.runtime.clock.now())
    data = await page.queries.overview(period)
    counts = {path: sum(point.runs[path] for point in data.paths) for path in PATHS}
    has_data = any(point.count for point in data.latency) or any(counts.values())
    return page.render(
        "overview.html",
        range=range_,
        ranges=RANGES,
        counts=counts,
        runs=sum(counts.values()),
        has_data=has_data,
        cost=sum(point.cost for point in data.spend),
        ungoverned=data.ungoverned,
        waiting=data.waiting,
        uncertain=data.uncertain,
        charts=await _charts(page, period, data) if has_data else {},
    )


async def _charts(page: PageContext, period: TimeRange, data: OverviewData) -> dict[str, Markup]:
    """The charts by their titles."""
    axis = partial(TimeAxis, since=period.since, until=period.until, interval=period.interval)
    specs = {
        "Runs by path": partial(stacked_bars, axis(title="runs"), path_rows(data.paths), PATHS),
        "Spend": partial(bars, axis(title="dollars", number_format="$.3~r"), spend_rows(data.spend), "accent"),
        "Run latency": partial(
            lines, axis(title="seconds", number_format="~r"), latency_rows(data.latency), PERCENTILES
        ),
        "Runs with errors": partial(bars, axis(title="runs"), error_rows(data.latency), "failed"),
    }
    key = (page.queries.tenant, period.name)
    return {title: await page.state.charts.render((*key, title), build) for title, build in specs.items()}

"""Rendering of the templates. Every value is escaped, and its control and direction characters are made visible."""

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from handrail.kernel.clock import from_unix_ns
from handrail.kernel.money import NanoUsd, format_usd
from handrail.kernel.text import format_duration, format_json, sanitize, shorten
from handrail.review.approvals.labels import STATE_LABELS, is_uncertain, settlement_label


class Renderer:
    """The templates of this package, compiled on first use."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader(__package__ or "", "templates"),
            autoescape=True,
            finalize=sanitize_value,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            excerpt=lambda value, length: shorten(str(value), length),
            duration=format_duration,
            from_ns=from_unix_ns,
            time=format_time,
            usd=_usd,
            pretty=_pretty,
            line=_line,
            count=_count,
            share=_share,
            state_label=STATE_LABELS.__getitem__,
            settlement_label=settlement_label,
        )
        self._environment.tests.update(uncertain=is_uncertain)
        self._environment.globals.update(static=static_url, url=self.url)

    def render(self, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """The page that a template makes of `context`."""
        return HTMLResponse(self._environment.get_template(template).render(context), status)

    @staticmethod
    def url(*segments: str, **query: Any) -> str:
        """A URL path of this server.

        Args:
            segments: The path's segments, which are quoted: they may contain names that users chose.
            query: Query parameters; None and the empty string are left out.
        """
        parameters = {name: value for name, value in query.items() if value not in (None, "")}
        return (
            "/"
            + "/".join(quote(segment, safe="") for segment in segments)
            + (f"?{urlencode(parameters)}" if parameters else "")
        )


def sanitize_value(value: Any) -> Any:
    """A value as a template may print it: our own markup unchanged, None as nothing, all else as sanitized text."""
    return value if isinstance(value, Markup) else sanitize(str(value)) if value is not None else ""


def format_time(at: datetime) -> Markup:
    """A time in UTC, to the second. The script of the pages turns it into the reader's local time."""
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}Z">{} UTC</time>').format(
        utc.strftime("%Y-%m-%dT%H:%M:%S"), utc.strftime("%Y-%m-%d %H:%M:%S")
    )


@cache
def static_url(name: str) -> str:
    """The URL of a static file. It changes with the file's content, so that browsers may cache it for good."""
    content = (files(__package__ or "") / "static" / name).read_bytes()
    return f"/static/{name}?{hashlib.sha256(content).hexdigest()[:12]}"


def _usd(amount: int | None) -> str:
    return "" if amount is None else format_usd(NanoUsd(amount))


def _pretty(value: Any) -> str:
    """Text unchanged, anything else as indented JSON."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _line(value: Any) -> str:
    """Text unchanged, None as nothing, anything else as JSON on one line."""
    if value is None or isinstance(value, str):
        return value or ""
    return format_json(value)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _share(fraction: float) -> str:
    return f"{100 * fraction:.1f}%" if 0 < fraction < 0.1 else f"{100 * fraction:.0f}%"

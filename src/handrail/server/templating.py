"""Templates made into answers. Every value is escaped, and cleaned of what a browser or a reader would obey."""

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse

from handrail.kernel.clock import from_unix_ns
from handrail.kernel.money import NanoUsd, show_usd
from handrail.kernel.text import format_duration, shorten

from .text import show_time, shown


class Renderer:
    """The templates of this package, compiled on first use."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader(__package__ or "", "templates"),
            autoescape=True,
            finalize=shown,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            excerpt=lambda value, length: shorten(str(value), length),
            duration=format_duration,
            moment=from_unix_ns,
            time=show_time,
            usd=_usd,
            pretty=_pretty,
            line=_line,
            count=_count,
            share=_share,
        )
        self._environment.globals.update(static=static_url, path=self.path)

    def page(self, template: str, status: int = 200, **context: Any) -> HTMLResponse:
        """The page that a template makes of `context`."""
        return HTMLResponse(self._environment.get_template(template).render(context), status)

    @staticmethod
    def path(*parts: str, **query: Any) -> str:
        """A path of this site, of parts that users may have named, with the query's entries that are not empty."""
        asked = {name: value for name, value in query.items() if value not in (None, "")}
        return "/" + "/".join(quote(part, safe="") for part in parts) + (f"?{urlencode(asked)}" if asked else "")


@cache
def static_url(name: str) -> str:
    """Where a file of ours is, under a name that changes with it, so that browsers may keep it."""
    content = (files(__package__ or "") / "static" / name).read_bytes()
    return f"/static/{name}?{hashlib.sha256(content).hexdigest()[:12]}"


def _usd(amount: int | None) -> str:
    return "" if amount is None else show_usd(NanoUsd(amount))


def _pretty(found: Any) -> str:
    """Text as it is, anything else as indented JSON."""
    return found if isinstance(found, str) else json.dumps(found, indent=2, ensure_ascii=False, default=str)


def _line(found: Any) -> str:
    """Text as it is, nothing for None, anything else as JSON on one line."""
    if found is None or isinstance(found, str):
        return found or ""
    return json.dumps(found, ensure_ascii=False, default=str)


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _share(part: float) -> str:
    return f"{100 * part:.1f}%" if 0 < part < 0.1 else f"{100 * part:.0f}%"

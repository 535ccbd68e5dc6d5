"""Reads pages and submits forms like a browser without scripts."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any

import httpx2

from tests.server.live_server import LiveServer

_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]{64})"')


def token_in(response: httpx2.Response) -> str:
    """The token in a page's forms."""
    match = _TOKEN.search(response.text)
    assert match, response.text
    return match[1]


def send(client: httpx2.Client, page: str, to: str, **fields: Any) -> httpx2.Response:
    """Posts a form with the token of `page` to the path `to`."""
    return client.post(to, data={"form_token": token_in(client.get(page)), **fields})


def text_of(response: httpx2.Response) -> str:
    """The text of a page without its markup."""
    return unescape(re.sub(r"<[^>]*>", " ", response.text))


@contextmanager
def logged_in(server: LiveServer, name: str, password: str) -> Iterator[httpx2.Client]:
    """A client that is logged in."""
    with server.client() as client:
        response = send(client, "/login", "/login", name=name, password=password)
        assert response.status_code == 303, response.text
        yield client

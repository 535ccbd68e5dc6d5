"""Pages as a browser without scripts has them: links, forms, cookies."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any

import httpx2

from tests.server.serving import Served

_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]{64})"')


def token_in(answer: httpx2.Response) -> str:
    """The token of a page's forms."""
    found = _TOKEN.search(answer.text)
    assert found, answer.text
    return found[1]


def send(client: httpx2.Client, page: str, to: str, **fields: Any) -> httpx2.Response:
    """Sends a form of `page` to the address that it names."""
    return client.post(to, data={"form_token": token_in(client.get(page)), **fields})


def text_of(answer: httpx2.Response) -> str:
    """What a reader sees of a page, roughly."""
    return unescape(re.sub(r"<[^>]*>", " ", answer.text))


@contextmanager
def logged_in(server: Served, name: str, password: str) -> Iterator[httpx2.Client]:
    """A client with a session."""
    with server.client() as client:
        answer = send(client, "/login", "/login", name=name, password=password)
        assert answer.status_code == 303, answer.text
        yield client

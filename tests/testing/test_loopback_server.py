"""The loopback provider as a server."""

import asyncio
import socket
import time
from urllib.parse import urlsplit

import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from handrail.testing import LoopbackProvider, Reply


@pytest.mark.anyio
async def test_many_requests_at_once(provider: LoopbackProvider) -> None:
    """Requests that overlap each get one reply of the queue, and each is billed once."""
    provider.reply(*(Reply(text=f"{number}" * 40, chunk_delay_s=0.001) for number in range(8)))

    async def answer(client: AsyncOpenAI) -> str:
        chunks = await client.chat.completions.create(
            model="invented", messages=[{"role": "user", "content": "Hello?"}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    http_client = DefaultAsyncHttpxClient(verify=False)
    async with AsyncOpenAI(base_url=provider.openai_url, api_key="test", http_client=http_client) as client:
        answers = await asyncio.gather(*(answer(client) for _ in range(8)))
    assert sorted(answers) == [f"{number}" * 40 for number in range(8)]
    assert provider.billed == 8 * (6 * 1_000 + 10 * 2_000)


def test_a_reply_that_is_delayed(provider: LoopbackProvider) -> None:
    """Nothing arrives before the delay is over; a client that leaves during it is billed all the same."""
    provider.reply(Reply(text="ok", delay_s=60))
    address = urlsplit(provider.openai_url)
    body = b'{"model":"invented","messages":[{"role":"user","content":"Hello?"}]}'
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        connection.sendall(body)
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert not provider.wait_until_idle(timeout_s=0)
    assert provider.wait_until_idle()
    assert provider.billed == 6 * 1_000 + 2_000


def test_a_body_that_is_no_json(provider: LoopbackProvider) -> None:
    """It is turned down with status 400, free, in the provider's format."""
    address = urlsplit(provider.openai_url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{")
        response = b"".join(iter(lambda: connection.recv(4096), b""))
    assert response.startswith(b"HTTP/1.1 400 ")
    assert b'"type": "invalid_request_error"' in response
    assert [(request.body, request.bill) for request in provider.requests] == [(None, None)]


def test_closing_closes_open_connections() -> None:
    """A connection on which nothing was asked yet does not hold the provider up."""
    with LoopbackProvider() as provider:
        address = urlsplit(provider.openai_url)
        connection = socket.create_connection((address.hostname, address.port))
        # Until the server has accepted it.
        time.sleep(0.05)
        started = time.monotonic()
    assert time.monotonic() - started < 1
    assert connection.recv(1) == b""
    connection.close()


def test_an_address_needs_a_running_server() -> None:
    """A provider that was not started says how to start it."""
    with pytest.raises(RuntimeError, match="`with` statement"):
        _ = LoopbackProvider().openai_url


def test_a_token_is_a_number_of_bytes() -> None:
    """Texts are counted in UTF-8, rounded up; one byte for each token is the worst case."""
    assert [LoopbackProvider().count(text) for text in ("", "a", "abcd", "abcde", "äöü")] == [0, 1, 1, 2, 2]
    assert LoopbackProvider(bytes_per_token=1).count("äöü") == 6

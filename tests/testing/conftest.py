"""A loopback provider, and the official clients that speak to it."""

from collections.abc import Iterator

import pytest
from anthropic import Anthropic
from anthropic import DefaultHttpxClient as AnthropicHttpClient
from openai import DefaultHttpxClient as OpenAIHttpClient
from openai import OpenAI

from handrail.testing import LoopbackProvider


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    """A provider that answers "ok" until it is told otherwise."""
    with LoopbackProvider(prices={"invented": (1, 2)}) as provider:
        yield provider


@pytest.fixture
def openai_client(provider: LoopbackProvider) -> Iterator[OpenAI]:
    """OpenAI's client, without retries."""
    # Certificates take longer to load than all else in a test.
    http_client = OpenAIHttpClient(verify=False, timeout=5)
    with OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0, http_client=http_client) as client:
        yield client


@pytest.fixture
def anthropic_client(provider: LoopbackProvider) -> Iterator[Anthropic]:
    """Anthropic's client, without retries."""
    http_client = AnthropicHttpClient(verify=False, timeout=5)
    with Anthropic(base_url=provider.anthropic_url, api_key="test", max_retries=0, http_client=http_client) as client:
        yield client

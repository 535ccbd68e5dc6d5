"""A request that is being answered, and what it has cost so far."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .answer import ModelResult, TokenUsage
from .bill import Bill
from .response import PlannedResponse
from .usage import usage_until


@dataclass(frozen=True)
class ReceivedRequest:
    """A request that the provider received."""

    path: str
    """The path, without the query."""
    headers: Mapping[str, str]
    """The headers, by their names in lower case."""
    body: Any
    """The parsed JSON body; None if there is none, or if it is no JSON."""
    bill: Bill | None
    """What it has cost so far; None if it is free."""


class RequestRecord:
    """A received request whose bill grows while it is answered."""

    def __init__(self, path: str, headers: Mapping[str, str], body: Any) -> None:
        self.path = path
        self.headers = headers
        self.body = body
        self.bill: Bill | None = None

    def received(self) -> ReceivedRequest:
        """The request with its bill so far."""
        return ReceivedRequest(self.path, self.headers, self.body, self.bill)


@dataclass(frozen=True)
class UnbilledExchange:
    """An exchange for which nothing is charged."""

    response: PlannedResponse

    def chunk_generated(self, chunks: int) -> None:
        """Charges nothing."""


class BilledExchange:
    """An exchange that is billed in full at once, or a stream as it is generated.

    A chunk is on the bill before it is sent, so that a client never knows more than the bill.
    """

    def __init__(
        self,
        record: RequestRecord,
        result: ModelResult,
        response: PlannedResponse,
        all_chunks: int,
        bill: Callable[[TokenUsage], Bill],
    ) -> None:
        self.response = response
        self._record = record
        self._result = result
        self._all_chunks = all_chunks
        self._bill = bill
        record.bill = bill(result.usage)

    def chunk_generated(self, chunks: int) -> None:
        """Charges for a stream as far as it has been generated."""
        result = self._result
        usage = usage_until(result.usage, result.request, result.answer, chunks, self._all_chunks)
        self._record.bill = self._bill(usage)

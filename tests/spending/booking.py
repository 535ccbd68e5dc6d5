"""What a run spent, as Handrail booked it and as the provider billed it."""

from dataclasses import dataclass, field
from typing import Any

from handrail import Refused
from handrail.kernel.money import NanoUsd
from handrail.testing import LoopbackProvider
from handrail.traces.model import Span


@dataclass(frozen=True, kw_only=True)
class Booking:
    """How a run ended, and its money in nano-dollars."""

    outcome: Any
    """None if an exception left the run."""
    raised: BaseException | None
    provider: LoopbackProvider
    requests: tuple[Span, ...]
    """The spans of its requests to models, by their start."""
    spent: NanoUsd
    """What the accounts of all users say."""
    held: NanoUsd
    """What they still hold."""
    billed: NanoUsd
    discrepancies: tuple[str, ...] = field(default=())

    @property
    def estimated(self) -> list[bool]:
        """Whether the cost of each request is marked as an estimate."""
        return [bool(span.attributes.get("handrail.cost.estimated")) for span in self.requests]

    def assert_consistent(self) -> None:
        """The accounts, the spans and the outcome agree, and nothing is held any more."""
        assert self.discrepancies == ()
        assert self.held == 0
        assert sum(span.cost for span in self.requests) == self.spent
        if self.outcome is not None:
            assert self.outcome.facts.cost == self.spent

    def assert_exact(self, requests: int = 1) -> None:
        """What is booked is what the provider billed, and not an estimate.

        Args:
            requests: How many requests the provider received and Handrail traced.
        """
        self.assert_consistent()
        assert len(self.provider.requests) == len(self.requests) == requests, self.outcome or self.raised
        assert self.spent == self.billed > 0, self.outcome or self.raised
        assert not any(self.estimated)

    def assert_estimated(self, requests: int = 1) -> None:
        """What is booked is at least what the provider billed, at most what was held, and marked as an estimate.

        Args:
            requests: How many requests Handrail traced.
        """
        self.assert_consistent()
        assert len(self.requests) == requests, self.outcome or self.raised
        assert self.spent >= self.billed > 0
        assert any(self.estimated)
        assert all(span.held is not None and span.cost <= span.held for span in self.requests)

    def assert_free(self, requests: int = 1) -> None:
        """Nothing is booked, and nothing was billed.

        Args:
            requests: How many requests Handrail traced.
        """
        self.assert_consistent()
        assert len(self.requests) == requests, self.outcome or self.raised
        assert (self.spent, self.billed) == (0, 0)
        assert not any(self.estimated)

    def assert_refused(self, name: str) -> None:
        """Nothing reached the provider, and the refusal says what could not be bounded, and how to allow it.

        Args:
            name: What the refusal names.
        """
        self.assert_consistent()
        assert isinstance(self.outcome, Refused)
        assert (self.outcome.scope, self.outcome.facts.requests) == ("unbounded", 0)
        assert self.outcome.refusal.unbounded == (name,)
        assert 'unbounded = "allow"' in str(self.outcome.refusal)
        assert self.provider.requests == ()
        assert (self.spent, self.billed) == (0, 0)

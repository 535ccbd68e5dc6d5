"""What one run has used so far: requests, tokens, money and tools."""

from dataclasses import dataclass, field, replace

from handrail.kernel.money import ZERO, NanoUsd
from handrail.traces.model import Usage


@dataclass(frozen=True, kw_only=True)
class RunTotals:
    """An immutable value; each method returns new totals."""

    requests: int = 0
    """Model requests that were started."""
    usage: Usage = field(default_factory=Usage)
    """Tokens of the requests that were settled."""
    cost: NanoUsd = ZERO
    """Cost of the requests that were settled, in nano-dollars."""
    tools: tuple[str, ...] = ()
    """The tools that were executed, in order."""

    def with_request(self) -> "RunTotals":
        """The totals after one more model request was started."""
        return replace(self, requests=self.requests + 1)

    def without_request(self) -> "RunTotals":
        """The totals after the latest request was refused and so not sent."""
        return replace(self, requests=self.requests - 1)

    def with_settled(self, usage: Usage, cost: NanoUsd) -> "RunTotals":
        """The totals after a model request was settled for `usage` and `cost`."""
        total = Usage(
            input=self.usage.input + usage.input,
            output=self.usage.output + usage.output,
            cache_read=self.usage.cache_read + usage.cache_read,
            cache_write=self.usage.cache_write + usage.cache_write,
        )
        return replace(self, usage=total, cost=NanoUsd(self.cost + cost))

    def with_tool(self, name: str) -> "RunTotals":
        """The totals after the tool `name` was executed."""
        return replace(self, tools=(*self.tools, name))

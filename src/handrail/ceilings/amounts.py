"""Amounts that are held and spent: money and tokens together."""

from dataclasses import dataclass

from handrail.kernel.money import ZERO, NanoUsd


@dataclass(frozen=True, slots=True)
class Amount:
    """Nano-dollars, input tokens and output tokens."""

    cost: NanoUsd = ZERO
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            NanoUsd(self.cost + other.cost),
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(
            NanoUsd(self.cost - other.cost),
            self.input_tokens - other.input_tokens,
            self.output_tokens - other.output_tokens,
        )


NOTHING = Amount()

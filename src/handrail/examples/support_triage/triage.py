"""The agent's output: where a customer's message goes, and what should happen next."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field
from pydantic_ai import RunContext

from .desk import Desk
from .refund_policy import refund_due

Category = Literal["delivery", "billing", "return", "product", "account", "cancel", "complaint", "other"]


class Triage(BaseModel):
    """The triage of one message, by the rules of policy.md."""

    category: Category = Field(description="what the message is about")
    order: str | None = Field(description="order number found on the desk, else null")
    refund: bool = Field(description="true if the policy says a refund is due")
    escalate: bool = Field(description="true if a person must take over")
    reply: str = Field(min_length=1, max_length=1000, description="short answer to the customer")


def triage(
    ctx: RunContext[Desk],
    need: Annotated[str, Field(max_length=80, description="what the customer needs, in a few words")],  # noqa: ARG001
    category: Annotated[Category, Field(description="the first in the list that fits the need")],
    order: Annotated[str | None, Field(description="order number in the message, else null")],
    faulty: Annotated[bool, Field(description="the customer says the article arrived broken, wrong or incomplete")],
    escalate: Annotated[bool, Field(description="a person must take over")],
    reply: Annotated[str, Field(min_length=1, max_length=400, description="answer to the customer")],
) -> Triage:
    """The final triage. The model says what only a reader can know; whether money is due, the desk's facts decide.

    `need` comes first, so that the model has said what it is about before it sorts it.
    """
    known = ctx.deps.find_order(order) if order else None
    due = known is not None and refund_due(known, ctx.deps.list_charges(known.number), faulty=faulty)
    return Triage(category=category, order=known.number if known else None, refund=due, escalate=escalate, reply=reply)

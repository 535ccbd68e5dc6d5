"""What the agent answers: where a customer's message goes and what should happen next."""

from typing import Literal

from pydantic import BaseModel, Field

Category = Literal["delivery", "billing", "return", "product", "account", "cancel", "complaint", "other"]


class Triage(BaseModel):
    """The triage of one message, by the rules of policy.md."""

    category: Category = Field(description="what the message is about")
    order: str | None = Field(description="order number found on the desk, else null")
    refund: bool = Field(description="true if the policy says a refund is due")
    escalate: bool = Field(description="true if a person must take over")
    reply: str = Field(min_length=1, max_length=1000, description="short answer to the customer")

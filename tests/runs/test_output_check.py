"""An output is accepted as it is, if it is a valid instance of an output type all the way down."""

import re
import threading
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SecretStr,
    model_validator,
)
from pydantic_ai import (
    DeferredToolRequests,
    NativeOutput,
    PromptedOutput,
    TextOutput,
    ToolOutput,
)
from pydantic_ai.output import Choice, Choices

from handrail.runs.output import output_check
from handrail.runs.output_check import InvalidOutput
from tests.runs.output_types import (
    Aliased,
    Approve,
    Box,
    Cat,
    Checked,
    Closed,
    Colour,
    Decoded,
    Deep,
    Dog,
    Holder,
    Home,
    Item,
    Items,
    Node,
    Opaque,
    Open,
    Parcel,
    Person,
    Plain,
    Point,
    Reject,
    Row,
    Serialized,
    Special,
    Strict,
    Text,
    Ticket,
    Validated,
    Values,
    changed,
    cyclic,
    made,
    of_async_function,
    of_function,
    of_ticket,
    of_unknown,
    validated,
)


@pytest.fixture(autouse=True)
def runtime() -> None:
    """These tests need no store."""


VALID: list[tuple[str, Any, Callable[[], Any]]] = [
    ("the second of two alike", [Approve, Reject], lambda: Reject(note="no")),
    ("a union", Approve | Reject, lambda: Reject(note="no")),
    ("aliases", Aliased, lambda: Aliased.model_validate({"no": 1, "Text": "a"})),
    (
        "serializers, secrets, excluded and computed fields",
        Serialized,
        lambda: Serialized(secret=SecretStr("x"), hidden=1, price=Decimal(2)),
    ),
    ("a model serializer", Opaque, lambda: Opaque(count=1)),
    ("a subclass", Approve, lambda: Special(note="yes", level=3)),
    ("a subclass in a list", list[Approve], lambda: [Special(note="yes", level=3)]),
    ("a generic model", Box[int], lambda: Box[int](value=1)),
    ("a generic model without its parameter", Box[int], lambda: Box(value=1)),
    ("a generic model of a model", Box[Item], lambda: Box[Item](value=Item(count=1))),
    ("a discriminated union", Home, lambda: Home(pet=Dog(owner="ann"))),
    ("a discriminated union as output type", Annotated[Cat | Dog, Discriminator("kind")], lambda: Dog(owner="ann")),
    ("a root model", Items, lambda: Items([Item(count=1)])),
    ("extra fields", Open, lambda: Open.model_validate({"name": "a", "more": 1})),
    ("private attributes, cached properties, frozen", Closed, lambda: (closed := Closed(name="a"), closed.shout)[0]),
    ("all kinds of values", Values, Values),
    (
        "all kinds of values that were read",
        Values,
        lambda: Values.model_validate(
            {
                "url": "http://a.b",
                "size": "1KB",
                "colour": "blue",
                "sequence": ({"count": 1},),
                "numbers": "[3]",
                "mapping": {"a": {"count": 1}},
            }
        ),
    ),
    ("validators that transform", Validated, validated),
    ("types that read themselves", Decoded, lambda: Decoded.model_validate({"text": "aGk=", "prices": ["EUR 3"]})),
    ("validators that check", Checked, lambda: Checked(low=1)),
    ("a recursive model", Node, lambda: Node(value=1, next=Node(value=2), others=[Node(value=3)])),
    ("a cycle", Node, cyclic),
    ("a named tuple", Point, lambda: Point(1, 2)),
    ("a typed dict", Row, lambda: {"count": 1, "item": Item(count=2)}),
    ("a dataclass", Plain, lambda: Plain(Item(count=1), [Item(count=2)])),
    ("a dataclass of Pydantic", Strict, lambda: Strict(Item(count=1))),
    (
        "nested in everything",
        Deep,
        lambda: Deep(
            by_name={"a": Item(count=1)},
            pair=(Item(count=1), 2),
            row={"count": 1, "item": Item(count=2)},
            point=Point(1),
            plain=Plain(Item(count=1)),
            strict=Strict(Item(count=1)),
            anything=[{"x": Item(count=1)}],
            items=Items([]),
        ),
    ),
    ("a number", int, lambda: 3),
    ("a text", str, lambda: "yes"),
    ("a subclass of str", str, lambda: Text("yes")),
    ("a constrained number", Annotated[int, Field(ge=0)], lambda: 0),
    ("a list", list[Item], lambda: [Item(count=1)]),
    ("a dict", dict[str, Item], lambda: {"a": Item(count=1)}),
    ("an enum", Colour, lambda: Colour.RED),
    ("a literal", Literal["a", "b"], lambda: "b"),
    ("a text in an input validator", Annotated[int, BeforeValidator(lambda value: int(value) + 1)], lambda: 3),
    ("a choice's value", Choices({"a": Choice("first", value=Item(count=1))}), lambda: Item(count=1)),
    ("an output function", of_function, lambda: Approve(note="yes")),
    ("an async output function", of_async_function, lambda: [Item(count=1)]),
    ("an output function of a class", of_ticket, Ticket),
    ("an output function without annotation", of_unknown, lambda: ["a"]),
    ("a partial output function", TextOutput(partial(of_function)), lambda: Approve(note="yes")),
    ("a text output function", TextOutput(of_function), lambda: Approve(note="yes")),
    ("tool output", [ToolOutput(Approve), ToolOutput(Reject)], lambda: Reject(note="no")),
    ("native output", NativeOutput([Approve, Reject]), lambda: Reject(note="no")),
    ("prompted output", PromptedOutput([Approve, Reject]), lambda: Reject(note="no")),
    ("beside deferred tools", [Approve, DeferredToolRequests], lambda: Approve(note="yes")),
    ("a StructuredDict", Person, lambda: {"name": "ann", "address": {"zip": "123"}}),
    ("one of several StructuredDicts", [Person, Parcel], lambda: {"kg": 1}),
    ("nested StructuredDicts", Holder, lambda: Holder(person={"name": "ann"}, parcels=[{"kg": 1}])),
]

INVALID: list[tuple[str, Any, Callable[[], Any], str]] = [
    ("another class", [Approve, Reject], lambda: Item(count=1), "expected Approve or Reject, got Item"),
    ("a look-alike", Approve, lambda: Reject(note="no"), "expected Approve, got Reject"),
    ("a dict for a model", Approve, lambda: {"note": "yes"}, "expected Approve, got dict"),
    ("a text for a model", Approve, lambda: '{"note": "yes"}', "expected Approve, got str"),
    ("a bool for a number", int, lambda: True, "expected int, got bool"),
    ("a text for a number", int, lambda: "1", "valid integer"),
    ("a number for a text", str, lambda: 1, "valid string"),
    ("a number below the limit", Annotated[int, Field(ge=0)], lambda: -1, "greater than or equal to 0"),
    ("a missing field", Approve, lambda: made(Approve), "Approve.note: Field required"),
    ("a wrong field", Approve, lambda: made(Approve, note=1), "Approve.note: Input should be a valid string"),
    ("a changed field", Approve, lambda: changed(Approve(note="a"), note=None), "Approve.note"),
    ("a bool in a number's field", Item, lambda: made(Item, count=True), "Item.count"),
    ("a convertible field", Item, lambda: made(Item, count="1"), "Item.count"),
    ("a dict in a model's field", Box[Item], lambda: made(Box[Item], value={"count": 1}), "Input should be a Item"),
    ("a subclass's own field", Approve, lambda: made(Special, note="a", level="x"), "Special.level"),
    ("a generic model of another type", Box[int], lambda: Box[str](value="a"), "Box[str]"),
    ("a generic model without its parameter", Box[int], lambda: Box(value="a"), "value: Input should be a valid int"),
    ("a wrong member of a union", Home, lambda: changed(Home(pet=Cat()), pet=Item(count=1)), "Home.pet"),
    ("an invalid member of a union", Home, lambda: Home(pet=made(Dog, owner=1)), "Home.pet.owner"),
    ("in a root model", Items, lambda: Items([made(Item, count="x")]), "Items.root[0].count"),
    ("a root model's root", Items, lambda: made(Items, root=[1]), "Items[0]"),
    ("a wrong extra field", Open, lambda: made(Open, name="a", more="x"), "Open.more"),
    ("a type that reads itself", Decoded, lambda: made(Decoded, text="", prices=["EUR 3"]), "Decoded.prices[0]"),
    ("a check after", Checked, lambda: changed(Checked(low=1), low=-1), "low is negative"),
    ("a check around", Checked, lambda: changed(Checked(low=1), around=0), "zero"),
    ("a check of the whole", Checked, lambda: changed(Checked(low=1), high=0), "low is above high"),
    ("behind an input validator", Validated, lambda: changed(validated(), cents="$3"), "Validated.cents"),
    ("behind a wrap validator", Validated, lambda: changed(validated(), reference=7), "Validated.reference"),
    ("behind a plain validator", Validated, lambda: changed(validated(), day=7), "Validated.day"),
    ("in a list", list[Item], lambda: [Item(count=1), made(Item, count="x")], "list[1].count"),
    ("in a dict", dict[str, Item], lambda: {"a": made(Item, count="x")}, "dict.a.count"),
    ("in a tuple", Deep, lambda: Deep(pair=(made(Item, count="x"), 2)), "Deep.pair[0].count"),
    ("in a typed dict", Row, lambda: {"count": 1, "item": made(Item)}, "dict.item.count"),
    ("a typed dict", Row, lambda: {"count": "1", "item": Item(count=1)}, "dict.count"),
    ("a tuple for a named one", Point, lambda: (1, 2), "expected Point, got tuple"),
    ("a named tuple", Point, lambda: Point("a"), "Point"),  # type: ignore[arg-type]
    ("a dataclass", Plain, lambda: Plain(Item(count=1), [1]), "Plain.rest[0]"),  # type: ignore[list-item]
    ("in a dataclass", Plain, lambda: Plain(made(Item, count="x")), "Plain.item.count"),
    ("a dataclass of Pydantic", Strict, lambda: changed(Strict(Item(count=1)), count="x"), "Strict.count"),
    ("in a field of any type", Deep, lambda: Deep(anything=[{"x": made(Item, count="x")}]), "Deep.anything[0].x.count"),
    ("in a recursive model", Node, lambda: Node(value=1, next=made(Node, value="x")), "Node.next.value"),
    ("in a cycle", Node, lambda: changed(cyclic(), value="x"), "Node.value"),
    ("a changed list", Node, lambda: changed(Node(value=1), others=[1]), "Node.others[0]"),
    ("a text for a URL", Values, lambda: changed(Values(), url="https://example.com"), "Values.url"),
    ("a text for a UUID", Values, lambda: changed(Values(), id=str(UUID(int=1))), "Values.id"),
    ("a float for a Decimal", Values, lambda: changed(Values(), amount=1.5), "Values.amount"),
    ("a text for a time", Values, lambda: changed(Values(), at="2026-01-01"), "Values.at"),
    ("a text for a path", Values, lambda: changed(Values(), path="/tmp"), "Values.path"),
    ("no value of an enum", Values, lambda: changed(Values(), colour="green"), "Values.colour"),
    ("a number for a size", Values, lambda: changed(Values(), size=5), "Values.size"),
    ("no value of a literal", Values, lambda: changed(Values(), word="maybe"), "Values.word"),
    ("JSON that nobody parsed", Values, lambda: changed(Values(), numbers="[1]"), "Values.numbers"),
    ("a list for a tuple", Values, lambda: changed(Values(), pair=[1, "a"]), "Values.pair"),
    ("in a sequence", Values, lambda: changed(Values(), sequence=(1,)), "Values.sequence"),
    ("in a mapping", Values, lambda: changed(Values(), mapping={"a": 1}), "Values.mapping"),
    ("a text for a secret", Values, lambda: changed(Values(), secret="s3cret"), "Values.secret"),
    ("a default's field set wrongly", Values, lambda: changed(Values(), unset="x"), "Values.unset"),
    ("no value of a choice", Choices({"a": Choice("first", value=4)}), lambda: "a", "got str"),
    ("from an output function", of_function, lambda: "yes", "expected Approve, got str"),
    ("from an output function of a class", of_ticket, lambda: 7, "expected Ticket, got int"),
    ("deferred tools", [Approve, DeferredToolRequests], DeferredToolRequests, "expected Approve, got Deferred"),
    ("a StructuredDict", Person, lambda: {"name": 1}, 'dict: $.name: violates type "string"'),
    ("a StructuredDict without a key", Person, dict, "'name' is a required property"),
    ("inside a StructuredDict", Person, lambda: {"name": "a", "address": {"zip": "x"}}, "$.address.zip"),
    ("no StructuredDict of several", [Person, Parcel], lambda: {"kg": "1"}, "got dict"),
    ("a nested StructuredDict", Holder, lambda: Holder(person={}), "Holder.person: $: 'name' is a required"),
]  # fmt: skip


def as_text(output: Any) -> str:
    return re.sub(r"(id=|at )\w+", "", repr(output))


@pytest.mark.parametrize(("spec", "make"), [pytest.param(spec, make, id=name) for name, spec, make in VALID])
def test_valid_outputs(spec: Any, make: Callable[[], Any]) -> None:
    """A valid instance of an output type is accepted, and stays as it was."""
    output, alike = make(), make()
    output_check(spec).check(output)
    assert as_text(output) == as_text(alike)


@pytest.mark.parametrize(
    ("spec", "make", "text"), [pytest.param(spec, make, text, id=name) for name, spec, make, text in INVALID]
)
def test_invalid_outputs(spec: Any, make: Callable[[], Any], text: str) -> None:
    """What is no valid instance of an output type is rejected; the error names the type, the field and the problem."""
    with pytest.raises(InvalidOutput) as caught:
        output_check(spec).check(make())
    assert text in str(caught.value)


@pytest.mark.parametrize("make", [lambda: changed(Values(), secret="s3cret-1"), lambda: made(Item, count="s3cret-1")])
def test_no_values_in_errors(make: Callable[[], Any]) -> None:
    """The error for an output has none of its values."""
    with pytest.raises(InvalidOutput) as caught:
        output_check([Values, Item]).check(make())
    assert "s3cret" not in str(caught.value)


def test_validators_of_what_cannot_be_copied() -> None:
    """Validators do not change an output that holds something that cannot be copied."""

    class Counting(Deep):
        total: int = 0

        @model_validator(mode="after")
        def count(self) -> "Counting":
            self.total += 1
            return self

    output = Counting(anything=threading.Lock())
    output_check(Deep).check(output)
    assert output.total == 1

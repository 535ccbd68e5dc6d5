"""Output types of every kind, with instances that are valid and instances that are not."""

import dataclasses
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID

from pydantic import (
    AfterValidator,
    AliasChoices,
    Base64Str,
    BaseModel,
    ByteSize,
    Discriminator,
    Field,
    HttpUrl,
    Json,
    PlainValidator,
    PrivateAttr,
    RootModel,
    SecretStr,
    ValidationInfo,
    WrapValidator,
    computed_field,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_ai import (
    StructuredDict,
)
from pydantic_ai.models.function import FunctionModel
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypedDict

from tests.runs.scripts import Script

T = TypeVar("T")


class Approve(BaseModel):
    note: str


class Reject(BaseModel):
    note: str


class Item(BaseModel):
    count: int


class Aliased(BaseModel):
    number: int = Field(validation_alias=AliasChoices("nr", "no"), serialization_alias="id")
    text: str = Field(alias="Text")


class Serialized(BaseModel):
    secret: SecretStr
    hidden: int = Field(exclude=True)
    price: Decimal

    @computed_field
    def double(self) -> Decimal:
        return self.price * 2

    @field_serializer("price")
    def as_text(self, price: Decimal) -> str:
        return f"EUR {price}"


class Opaque(BaseModel):
    count: int

    @model_serializer
    def as_text(self) -> str:
        return f"{self.count} items"


class Special(Approve):
    level: int


class Box(BaseModel, Generic[T]):
    value: T


class Node(BaseModel):
    value: int
    next: "Node | None" = None
    others: list["Node"] = []


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    owner: str


class Home(BaseModel):
    pet: Annotated[Cat | Dog, Discriminator("kind")]


class Items(RootModel[list[Item]]):
    pass


class Open(BaseModel, extra="allow"):
    __pydantic_extra__: dict[str, int]

    name: str


class Closed(BaseModel, extra="forbid", frozen=True):
    name: str
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @cached_property
    def shout(self) -> str:
        return self.name.upper()


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def _groups() -> defaultdict[str, list[int]]:
    return defaultdict(list)


class Values(BaseModel, use_enum_values=True):
    url: HttpUrl = HttpUrl("https://example.com")
    id: UUID = UUID(int=1)
    amount: Decimal = Decimal("1.50")
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    wait: timedelta = timedelta(seconds=1)
    path: Path = Path("/tmp")
    colour: Colour = Colour.RED
    size: ByteSize = ByteSize(5)
    word: Literal["yes", "no"] = "yes"
    numbers: Json[list[int]] = Field(default="[1, 2]", validate_default=True)
    queue: deque[int] = Field(default_factory=lambda: deque([1]))
    groups: defaultdict[str, list[int]] = Field(default_factory=_groups)
    pair: tuple[int, str] = (1, "a")
    tags: frozenset[str] = frozenset()
    sequence: Sequence[Item] = ()
    mapping: Mapping[str, Item] = Field(default_factory=dict)
    secret: SecretStr = SecretStr("s3cret")
    anything: Any = None
    unset: int = None  # type: ignore[assignment]
    data: bytes = b""


class Point(NamedTuple):
    x: int
    y: int = 0


class Row(TypedDict):
    count: int
    item: Item


@dataclasses.dataclass
class Plain:
    item: Item
    rest: list[Item] = dataclasses.field(default_factory=list)


@pydantic_dataclass
class Strict:
    item: Item
    count: int = 0


class Deep(BaseModel):
    by_name: dict[str, Item] = {}
    pair: tuple[Item, int] | None = None
    row: Row | None = None
    point: Point | None = None
    plain: Plain | None = None
    strict: Strict | None = None
    anything: Any = None
    items: Items | None = None


class Validated(BaseModel):
    cents: int
    reference: str
    tags: list[str]
    name: Annotated[str, AfterValidator(str.upper), AfterValidator(lambda name: f"<{name}>")]
    percent: Annotated[float, WrapValidator(lambda value, handler: handler(str(value).rstrip("%")) / 100)]
    day: Annotated[date, PlainValidator(lambda value: date.fromisoformat(value))]
    total: int = 0

    @field_validator("cents", mode="before")
    @classmethod
    def parse(cls, value: str) -> int:
        return int(value.removeprefix("$")) * 100

    @field_validator("reference", mode="wrap")
    @classmethod
    def strip(cls, value: str, handler: Callable[[str], str]) -> str:
        if not value.startswith("ORD-"):
            raise ValueError("no order")
        return handler(value.removeprefix("ORD-"))

    @field_validator("tags")
    @classmethod
    def add(cls, tags: list[str], info: ValidationInfo) -> list[str]:
        assert info.data["cents"] >= 0
        return [*tags, "checked"]

    @model_validator(mode="before")
    @classmethod
    def rename(cls, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "cents": data["dollars"]}

    @model_validator(mode="after")
    def count(self) -> "Validated":
        self.total += 1
        self.tags.append("counted")
        return self


def validated() -> Validated:
    data = {"dollars": "$3", "reference": "ORD-7", "tags": ["a"], "name": "bob", "percent": "50%", "day": "2026-01-02"}
    return Validated.model_validate(data)


class Checked(BaseModel):
    low: int
    high: Annotated[int, AfterValidator(lambda value: value)] = 10
    around: int = 1

    @field_validator("low")
    @classmethod
    def positive(cls, low: int) -> int:
        if low < 0:
            raise ValueError("low is negative")
        return low

    @field_validator("around", mode="wrap")
    @classmethod
    def even(cls, value: Any, handler: Callable[[Any], int]) -> int:
        number = handler(value)
        if number == 0:
            raise ValueError("zero")
        return number

    @model_validator(mode="after")
    def ordered(self) -> "Checked":
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


Person = StructuredDict(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "address": {"type": "object", "properties": {"zip": {"type": "string", "pattern": "^[0-9]+$"}}},
        },
        "required": ["name"],
    }
)
Parcel = StructuredDict({"type": "object", "properties": {"kg": {"type": "number"}}, "required": ["kg"]}, name="Parcel")


class Holder(BaseModel):
    person: Person  # type: ignore[valid-type]
    parcels: list[Parcel] = []  # type: ignore[valid-type]


def made(cls: type[T], **fields: Any) -> T:
    """An instance of a model that nothing validated."""
    return cls.model_construct(**fields)  # type: ignore[attr-defined, no-any-return]


def changed(output: T, **fields: Any) -> T:
    """The same object with some fields set to other values."""
    for name, value in fields.items():
        setattr(output, name, value)
    return output


def cyclic() -> Node:
    node = Node(value=1)
    node.next = node
    return node


def of_function(text: str) -> Approve:
    return Approve(note=text)


async def of_async_function(text: str) -> list[Item]:
    return [Item(count=len(text))]


def of_unknown(text: str):  # type: ignore[no-untyped-def]
    return [text]


class Ticket:
    """Any class of an application."""


def of_ticket(number: int) -> Ticket:
    del number
    return Ticket()


def person_of(person: Person) -> str:  # type: ignore[valid-type]
    return str(person["name"])  # type: ignore[index]


def pair_of(person: Person, kg: int) -> tuple[str, int]:  # type: ignore[valid-type]
    return person["name"], kg  # type: ignore[index]


def native(script: Script) -> FunctionModel:
    """The script's model, which also supports native output."""
    model = script.model
    model._profile = {**model.profile, "supports_json_schema_output": True}
    return model


class Money:
    """A class that reads itself from a text, such as "EUR 3"."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def __repr__(self) -> str:
        return f"Money({self.amount})"

    @classmethod
    def parse(cls, text: str) -> "Money":
        return cls(int(text.removeprefix("EUR ")))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema())


class Decoded(BaseModel):
    text: Base64Str
    prices: list[Money]


class Text(str):
    __slots__ = ()

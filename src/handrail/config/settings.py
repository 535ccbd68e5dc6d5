"""The settings as values: their names, types, defaults and limits.

`load_settings` in `handrail.config.sources` reads them from handrail.toml and the environment.
"""

import os
from collections.abc import Sequence
from contextvars import ContextVar
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

ENV_PREFIX = "HANDRAIL_"

additional_sources: ContextVar[Sequence[PydanticBaseSettingsSource]] = ContextVar("additional_sources", default=())
"""Sources that `Settings(...)` reads after its arguments, highest priority first; empty outside `load_settings`."""

Dollars = Annotated[Decimal, Field(ge=0)]
Price = Annotated[Decimal, Field(ge=0, le=1_000_000)]


class PriceOverride(BaseModel):
    """A model's prices: of tokens in dollars per million, of requests and searches in dollars for each.

    They are the prices of every service tier. A cache price that is left out is the input price; that of the one-hour
    cache is `cache_write`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    input: Price
    """Input tokens."""
    output: Price
    """Output tokens, reasoning included."""
    cache_read: Price | None = None
    """Input tokens read from the provider's cache."""
    cache_write: Price | None = None
    """Input tokens written to the provider's cache."""
    cache_write_1h: Price | None = None
    """Input tokens written to the provider's cache for an hour."""
    request: Price = Decimal(0)
    """One request, whatever its tokens."""
    search: Price = Decimal(0)
    """One web search by the provider."""


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("expected a time zone of the IANA database, such as Europe/Berlin") from None
    return name


class AgentCeilings(BaseModel):
    """What the ceilings make of one agent's requests."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    unbounded: Literal["refuse", "allow"] = "refuse"
    """`allow` sends requests whose cost cannot be bounded, such as those with a provider's own web search. They may
    cost more than a ceiling leaves."""


class Ceilings(BaseModel):
    """Limits on spending: tokens in one run, dollars in a user's day and in a tenant's month.

    None removes a limit on money. Days and months begin at midnight in `time_zone`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    run_input_tokens: PositiveInt = 30_000
    """Input tokens of one run, over all of its model requests."""
    run_output_tokens: PositiveInt = 8_000
    """Output tokens of one run, over all of its model requests."""
    user_day: Dollars | None = Decimal(20)
    """Dollars that one user's runs may cost in a day."""
    tenant_month: Dollars | None = None
    """Dollars that one tenant's runs may cost in a month."""
    time_zone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    """A name of the IANA database, such as Europe/Berlin."""
    agents: dict[str, AgentCeilings] = {}
    """What is different for single agents, by name."""


class WorkerSettings(BaseModel):
    """How a worker runs background jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    concurrency: PositiveInt = 10
    """How many jobs it runs at once."""
    grace_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20
    """How long its jobs may go on after it was told to stop. Runs that are cancelled then can be resumed."""
    job_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3_600
    """How long one job may take."""


def _http_url(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("expected a full URL, such as https://collector.example/v1/traces")
    return url


class ExportSettings(BaseModel):
    """Where spans are sent in addition to the store, by OTLP over HTTP."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint: Annotated[str, AfterValidator(_http_url)] = Field(repr=False)
    """The full URL of a collector's traces endpoint."""
    headers: dict[str, str] = {}
    """The environment variable that holds the value, by header."""
    content: bool = False
    """Whether what users, models and tools wrote is sent too."""


def _import_path(target: str) -> str:
    module, colon, attribute = target.partition(":")
    if not (colon and all(part.isidentifier() for part in f"{module}.{attribute}".split("."))):
        raise ValueError("expected module:attribute, such as shop.agents:support")
    return target


class Settings(BaseSettings):
    """The settings in force. The constructor reads neither the file nor the environment; `load_settings` does."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
    )

    base: Path = Field(default_factory=Path.cwd)
    """The directory that relative paths start from: handrail.toml's, or the current one. Not a key of the file."""
    agents: dict[str, Annotated[str, AfterValidator(_import_path)]] = {}
    """The import path of each agent by its name: `module:attribute`."""
    evals: dict[str, Annotated[str, AfterValidator(_import_path)]] = {}
    """The import path of an agent's `EvalSpec` by the agent's name; needed only if it is not next to the agent."""
    store: str = Field(default="handrail.db", min_length=1, repr=False)
    """A path, sqlite:///PATH or postgresql://...; not in `repr`, because a URL may contain a password."""
    model: str | None = None
    """The model of agents that name none, as `provider:model`. None is the best that is available."""
    weights: Path | None = None
    """A copy of the built-in model's weights file; absolute."""
    cache: Path | None = None
    """The directory for downloads; absolute. None is the user's cache directory."""
    prices: dict[str, PriceOverride] = {}
    """Prices that replace the published ones, by model."""
    ceilings: Ceilings = Ceilings()
    """What runs, users and tenants may spend."""
    worker: WorkerSettings = WorkerSettings()
    """How `handrail worker`, and the worker in `handrail serve`, run background jobs."""
    roles: dict[str, tuple[str, ...]] = {}
    """The people who hold each role: only they may decide approvals that need it."""
    redact: Annotated[str, AfterValidator(_import_path)] | None = None
    """A function, `module:function`, that removes from spans what must not be stored."""
    export: ExportSettings | None = None
    """Where spans are sent in addition to the store."""
    otel_context: Literal["apart", "shared"] = "apart"
    """`shared` makes the program's own OpenTelemetry spans children of Handrail's, for when both go to one backend."""

    @field_validator("weights", "cache")
    @classmethod
    def _absolute(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        return path and info.data["base"] / os.path.expanduser(path)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        *_: Any,
        **__: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What pydantic-settings reads, highest priority first: the arguments, then `additional_sources`."""
        return (init_settings, *additional_sources.get())

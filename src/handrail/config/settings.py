"""What `handrail.toml` and the environment say, checked as a whole before anything runs.

    settings = load_settings()          # arguments, then HANDRAIL_* variables, then handrail.toml, then the defaults
    store = Database.open(settings.store, settings.base)

A variable reaches into a table with two underscores, in lower case: HANDRAIL_AGENTS__TRIAGE is the agent `triage`.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from handrail.kernel.errors import BadSettings

FILE_NAME = "handrail.toml"
_PREFIX = "HANDRAIL_"
_CONFIG = "HANDRAIL_CONFIG"

Dollars = Annotated[Decimal, Field(ge=0)]


class Price(BaseModel):
    """What a model costs, in dollars per million tokens. A cache price that is not given is the input price."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    input: Dollars
    output: Dollars
    cache_read: Dollars | None = None
    cache_write: Dollars | None = None


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("expected a time zone of the IANA database, such as Europe/Berlin") from None
    return name


class Ceilings(BaseModel):
    """What may be spent: tokens in one run, dollars in a user's day and in a tenant's month.

    None lifts a ceiling on money. Days and months are those of `time_zone`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    run_input_tokens: PositiveInt = 30_000
    run_output_tokens: PositiveInt = 8_000
    user_day: Dollars | None = Decimal(20)
    tenant_month: Dollars | None = None
    time_zone: Annotated[str, AfterValidator(_known_zone)] = "UTC"


def _web_address(address: str) -> str:
    if not address.startswith(("http://", "https://")):
        raise ValueError("expected the whole address, such as https://collector.example/v1/traces")
    return address


class ExportTo(BaseModel):
    """Where spans are sent besides the store: OTLP over HTTP, to the whole address of a collector's traces.

    `headers` names the environment variables that hold their values; with `content`, what was said is sent too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint: Annotated[str, AfterValidator(_web_address)] = Field(repr=False)
    headers: dict[str, str] = {}
    content: bool = False


def _importable(target: str) -> str:
    module, colon, attribute = target.partition(":")
    if not (colon and all(part.isidentifier() for part in f"{module}.{attribute}".split("."))):
        raise ValueError("expected module:attribute, such as shop.agents:support")
    return target


class Settings(BaseSettings):
    """Settings as values; `load_settings` is what reads the file and the environment."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
    )

    base: Path = Field(default_factory=Path.cwd)
    """The folder that relative paths start from: that of handrail.toml, else the current one. Not a key of the file."""
    agents: dict[str, Annotated[str, AfterValidator(_importable)]] = {}
    """An agent's name to where it is: `module:attribute`."""
    store: str = Field(default="handrail.db", min_length=1, repr=False)
    """A path, sqlite:///path or postgresql://address; kept out of `repr` because an address may hold a password."""
    model: str | None = None
    weights: Path | None = None
    """The built-in model's file, where the user has one; absolute."""
    cache: Path | None = None
    """Where downloads are kept; absolute. None is the user's cache folder."""
    prices: dict[str, Price] = {}
    ceilings: Ceilings = Ceilings()
    roles: dict[str, tuple[str, ...]] = {}
    """A role to the people who have it; only they decide what it has to approve."""
    redact: Annotated[str, AfterValidator(_importable)] | None = None
    """A function (`module:function`) that takes out of spans what must not be kept."""
    export: ExportTo | None = None
    otel_context: Literal["apart", "shared"] = "apart"
    """Whether the program's own OpenTelemetry spans hang below Handrail's: `shared` where both go to one place."""

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
        return (init_settings,)


_KEYS = sorted(Settings.model_fields.keys() - {"base"})
_TABLES: Mapping[str, Sequence[str]] = {
    "agents": (),
    "ceilings": sorted(Ceilings.model_fields),
    "export": sorted(ExportTo.model_fields),
    "prices": sorted(Price.model_fields),
    "roles": (),
}
"""The settings that are tables, with the keys of their entries where these are fixed."""


def load_settings(folder: Path | None = None, env: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """The settings in force in `folder` (default: the current one) under `env` (default: the process's environment).

    `given` comes before every other source. Raises BadSettings, naming each problem on a line of its own; values are
    never repeated in it, since any of them may be a secret.
    """
    here = Path.cwd() if folder is None else folder.absolute()
    env = os.environ if env is None else env
    file = _find(here, env)
    table = _read(file) if file else {}
    variables = {name: value for name, value in env.items() if name.startswith(_PREFIX) and name != _CONFIG and value}

    problems = [f"{file}: {key} is not a setting{_nearest(key, _KEYS)}" for key in table if key not in _KEYS]
    problems += [_unknown_variable(name) for name in variables if not _is_setting(name)]
    known = {key: value for key, value in table.items() if key in _KEYS}
    try:
        spoken = _from_variables({name: value for name, value in variables.items() if _is_setting(name)})
        settings = Settings(**{**_merge(_merge(known, spoken), given), "base": file.parent if file else here})
    except SettingsError as error:
        problems.append(f"{_PREFIX}* variables: {str(error).partition(' from source')[0]}, expected JSON")
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False, include_context=False):
            name = _name_of(fault["loc"], given, spoken, file)
            problems.append(f"{name}: {_explain(fault['type'], fault['loc'], fault['msg'])}")
    if problems:
        raise BadSettings("\n".join(problems))
    return settings


def _find(here: Path, env: Mapping[str, str]) -> Path | None:
    if named := env.get(_CONFIG):
        file = here / os.path.expanduser(named)
        if not file.is_file():
            raise BadSettings(f"{_CONFIG} names {file}, which is not a file")
        return file
    file = here / FILE_NAME
    return file if file.exists() else None


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
        return tomllib.loads(text, parse_float=Decimal)
    except OSError as error:
        raise BadSettings(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8")
        raise BadSettings(f"{file} is not UTF-8 (at {_end_of(before)})") from None
    except tomllib.TOMLDecodeError as error:
        problem = str(error).replace("at end of document", f"at {_end_of(text)}")
        raise BadSettings(f"{file} is not valid TOML: {problem}") from None


def _end_of(text: str) -> str:
    lines = text.split("\n")
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"


def _from_variables(variables: Mapping[str, str]) -> dict[str, Any]:
    source = EnvSettingsSource(Settings)
    source.env_vars = {name.lower(): value for name, value in variables.items()}
    return source()


def _is_setting(variable: str) -> bool:
    key, *inner = variable.removeprefix(_PREFIX).lower().split("__")
    return key in _TABLES if inner else key in _KEYS


def _unknown_variable(variable: str) -> str:
    key = variable.removeprefix(_PREFIX).partition("__")[0]
    return f"{variable} is not a setting{_nearest(key, _KEYS, _PREFIX)}"


def _nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    near = get_close_matches(name.lower(), known, n=2)
    offered = [prefix + (key.upper() if prefix else key) for key in near or known]
    return f"; did you mean {' or '.join(offered)}?" if near else f"; there are {', '.join(offered)}"


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**under, **over}
    for key in under.keys() & over.keys():
        if isinstance(under[key], dict) and isinstance(over[key], dict):
            merged[key] = _merge(under[key], over[key])
    return merged


def _name_of(loc: Sequence[int | str], given: Mapping[str, Any], spoken: Mapping[str, Any], file: Path | None) -> str:
    """The setting at `loc` as its author wrote it: an argument, a variable, or a key of the file."""
    parts = [str(part) for part in loc]
    if _holds(given, parts):
        return "argument " + ".".join(parts)
    if file is None or _holds(spoken, parts):
        return _PREFIX + "__".join(parts).upper()
    return f"{file}: {'.'.join(parts)}"


def _holds(values: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True


def _explain(kind: str, loc: Sequence[int | str], message: str) -> str:
    if kind == "extra_forbidden":
        return f"unknown{_nearest(str(loc[-1]), _TABLES[str(loc[0])] if len(loc) > 1 else _KEYS)}"
    if kind == "path_type":
        return "expected a path"
    return message.removeprefix("Value error, ").replace("Input should be", "expected").replace("Field", "this key is")

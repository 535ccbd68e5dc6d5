"""Where settings come from: arguments, then HANDRAIL_* variables, then handrail.toml, then the defaults.

    settings = load_settings()
    store = Database.open(settings.store, settings.base)

Two underscores in a variable's name reach into a table: HANDRAIL_AGENTS__TRIAGE is the agent `triage`.
"""

import os
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError, TomlConfigSettingsSource

from handrail.kernel.errors import BadSettings

from .error_messages import KEYS, invalid_values, is_setting, not_json, unknown_key, unknown_variable
from .settings import ENV_PREFIX, Settings, additional_sources

FILE_NAME = "handrail.toml"
_FILE_VARIABLE = "HANDRAIL_CONFIG"


class _Environment(EnvSettingsSource):
    """The settings in an environment. Empty variables and those that are not settings are left out."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(Settings)
        present = {name: value for name, value in variables.items() if _is_ours(name) and value}
        self.unknown = [name for name in present if not is_setting(name)]
        self.env_vars = {name.lower(): value for name, value in present.items() if is_setting(name)}


class _File(TomlConfigSettingsSource):
    """The settings in a TOML file; keys that are not settings are left out. Decimals stay exact."""

    def __init__(self, file: Path | None) -> None:
        super().__init__(Settings, file)
        self.unknown = [key for key in self.toml_data if key not in KEYS]

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        try:
            text = file_path.read_bytes().decode("utf-8-sig")
            return tomllib.loads(text, parse_float=Decimal)
        except OSError as error:
            raise BadSettings(f"{file_path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode("utf-8")
            raise BadSettings(f"{file_path} is not UTF-8 (at {_position(before)})") from None
        except tomllib.TOMLDecodeError as error:
            problem = str(error).replace("at end of document", f"at {_position(text)}")
            raise BadSettings(f"{file_path} is not valid TOML: {problem}") from None

    def __call__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__call__().items() if key in KEYS}


def load_settings(folder: Path | None = None, env: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Reads the settings and checks them as a whole before anything runs.

    Args:
        folder: The directory of handrail.toml, by default the current one. HANDRAIL_CONFIG names another file.
        env: The environment variables; those of the process by default.
        **overrides: Settings by name, which take precedence over every other source.

    Returns:
        The settings in force.

    Raises:
        BadSettings: A setting is unknown or not valid; the message has one line for each problem, without its value,
            which may be secret.
    """
    directory = Path.cwd() if folder is None else folder.absolute()
    variables = os.environ if env is None else env
    file_path = _find_file(directory, variables)
    file, environment = _File(file_path), _Environment(variables)
    problems = [f"{file_path}: {unknown_key(key)}" for key in file.unknown]
    problems += [unknown_variable(name) for name in environment.unknown]

    token = additional_sources.set((environment, file))
    try:
        from_environment = environment()
        settings = Settings(**{**overrides, "base": file_path.parent if file_path else directory})
    except SettingsError as error:
        problems.append(not_json(error))
    except ValidationError as error:
        problems += invalid_values(error, arguments=overrides, environment=from_environment, file=file_path)
    finally:
        additional_sources.reset(token)
    if problems:
        raise BadSettings("\n".join(problems))
    return settings


def _find_file(directory: Path, variables: Mapping[str, str]) -> Path | None:
    if configured := variables.get(_FILE_VARIABLE):
        file = directory / os.path.expanduser(configured)
        if not file.is_file():
            raise BadSettings(f"{_FILE_VARIABLE} names {file}, which is not a file")
        return file
    file = directory / FILE_NAME
    if file.exists() and not file.is_file():
        raise BadSettings(f"{file} cannot be read: it is not a file")
    return file if file.exists() else None


def _is_ours(variable: str) -> bool:
    return variable.startswith(ENV_PREFIX) and variable != _FILE_VARIABLE


def _position(text: str) -> str:
    lines = text.split("\n")
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"

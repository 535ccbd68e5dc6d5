"""Finds agents and their eval specs by the names that `handrail.toml` gives them; the reference agents are built in.

Called by the command line, the server and the worker, which know agents by name only.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from handrail.config.settings import Settings
from handrail.evals.spec import EvalSpec
from handrail.examples import AGENTS
from handrail.kernel.errors import BadSettings, NotFound
from handrail.runs.agent import GovernedAgent

_EVALS_MODULE = "evals"
"""The module next to an agent's own that is searched for its `EvalSpec`."""


def find_agent(name: str, settings: Settings) -> GovernedAgent[Any, Any]:
    """Returns the governed agent with this name.

    Args:
        name: A key of `[agents]` in handrail.toml, or a reference agent's name.
        settings: The settings in force.

    Raises:
        NotFound: There is no agent with this name.
        BadSettings: The import path in the settings does not lead to a governed agent.
    """
    targets = {**AGENTS, **settings.agents}
    if name not in targets:
        raise _unknown_agent(name, targets)
    _, agent = _load_agent(name, targets[name], settings.base)
    return agent


def find_eval_spec(name: str, settings: Settings) -> EvalSpec[Any, Any]:
    """Returns the eval spec of the agent with this name.

    An entry in `[evals]` in handrail.toml comes first. Otherwise it is the agent's only `EvalSpec` in the agent's own
    module or in the module `evals` next to it.

    Args:
        name: A key of `[evals]` or `[agents]` in handrail.toml, or a reference agent's name.
        settings: The settings in force.

    Raises:
        NotFound: There is neither an agent nor an eval spec with this name.
        BadSettings: The agent has no spec or several, or the import path in the settings does not lead to one.
    """
    if name in settings.evals:
        return _load_eval_spec(name, settings.evals[name], settings.base)
    targets = {**AGENTS, **settings.agents}
    if name not in targets:
        raise _unknown_agent(name, [*targets, *settings.evals])
    module, agent = _load_agent(name, targets[name], settings.base)
    modules = [module, *_sibling_evals(module)]
    specs = _specs_of(agent, modules)
    if len(specs) == 1:
        [spec] = specs.values()
        return spec
    if specs:
        example = next(iter(specs))
        raise BadSettings(
            f"agent {name} has several EvalSpecs ({', '.join(specs)}); choose one in handrail.toml, under [evals]: "
            f'{name} = "{example}"'
        )
    sibling = _sibling_name(module)
    searched = module.__name__ if len(modules) > 1 and modules[1] is module else f"{module.__name__} or {sibling}"
    raise BadSettings(
        f"agent {name} has no EvalSpec in {searched}; define one there, `EvalSpec(agent=..., cases=..., observe=...)`, "
        f'or name it in handrail.toml, under [evals]: {name} = "module:attribute"'
    )


def _unknown_agent(name: str, known: Iterable[str]) -> NotFound:
    names = sorted(set(known))
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known agents: {', '.join(names)}"
    return NotFound(f"there is no agent {name!r}; {hint}")


def _load_agent(name: str, target: str, base: Path) -> tuple[ModuleType, GovernedAgent[Any, Any]]:
    """The module and the agent that an import path leads to."""
    module, value = _load(f"agent {name}", target, base)
    if not isinstance(value, GovernedAgent):
        raise BadSettings(f'agent {name}: "{target}" is a {type(value).__name__}, not what govern() returns')
    return module, value


def _load_eval_spec(name: str, target: str, base: Path) -> EvalSpec[Any, Any]:
    entry = f'evals {name}: "{target}"'
    _, value = _load(f"evals {name}", target, base)
    if not isinstance(value, EvalSpec):
        raise BadSettings(f"{entry} is a {type(value).__name__}, not an EvalSpec")
    if value.name != name:
        raise BadSettings(f"{entry} evaluates agent {value.name}; rename the entry from `{name}` to `{value.name}`")
    return value


def _load(label: str, target: str, base: Path) -> tuple[ModuleType, Any]:
    """Imports `module:attribute`, modules in `base` first; returns the module and the attribute's value."""
    module_name, attribute = target.split(":")
    if str(base) not in sys.path:
        sys.path.insert(0, str(base))
    entry = f'{label}: "{target}"'
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise BadSettings(f"{entry}: no module {error.name!r} in {base} or installed") from error
    if not hasattr(module, attribute):
        raise BadSettings(f"{entry}: the module has no attribute {attribute!r}")
    return module, getattr(module, attribute)


def _sibling_name(module: ModuleType) -> str:
    package = module.__name__ if hasattr(module, "__path__") else module.__name__.rpartition(".")[0]
    return f"{package}.{_EVALS_MODULE}" if package else _EVALS_MODULE


def _sibling_evals(module: ModuleType) -> list[ModuleType]:
    """The module `evals` in the folder of `module`, if there is one.

    An installed distribution called `evals` does not count, and neither does a folder of data (a namespace package).
    """
    name = _sibling_name(module)
    sibling = importlib.util.find_spec(name)
    if sibling is None or sibling.origin is None or module.__file__ is None:
        return []
    origin, folder = Path(sibling.origin), Path(module.__file__).parent
    if folder not in (origin.parent, origin.parent.parent):
        return []
    return [importlib.import_module(name)]


def _specs_of(agent: GovernedAgent[Any, Any], modules: Iterable[ModuleType]) -> dict[str, EvalSpec[Any, Any]]:
    """The specs of exactly this agent in the modules, each under the first name that it has in them."""
    specs: dict[int, tuple[str, EvalSpec[Any, Any]]] = {}
    for module in modules:
        for attribute, value in vars(module).items():
            if isinstance(value, EvalSpec) and value.agent is agent:
                specs.setdefault(id(value), (f"{module.__name__}:{attribute}", value))
    return dict(specs.values())

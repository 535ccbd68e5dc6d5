"""Finds an agent by the name it has in `handrail.toml`; the reference agents are always there.

Called by the doors and the worker, which know agents by name only.
"""

import importlib
import sys
from difflib import get_close_matches
from typing import Any

from handrail.config.settings import Settings
from handrail.examples import AGENTS
from handrail.kernel.errors import BadSettings, NotFound
from handrail.runs.agent import GovernedAgent


def find_agent(name: str, settings: Settings) -> GovernedAgent[Any, Any]:
    """The governed agent of that name. Raises NotFound, or BadSettings where its module does not give one."""
    known = {**AGENTS, **settings.agents}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known agents: {', '.join(sorted(known))}"
        raise NotFound(f"there is no agent {name!r}; {hint}")
    module, attribute = known[name].split(":")
    if str(settings.base) not in sys.path:
        sys.path.insert(0, str(settings.base))
    where = f'agent {name}: "{known[name]}"'
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BadSettings(f"{where}: no module {error.name!r} in {settings.base} or installed") from error
    if not hasattr(imported, attribute):
        raise BadSettings(f"{where}: the module has no attribute {attribute!r}")
    found = getattr(imported, attribute)
    if not isinstance(found, GovernedAgent):
        raise BadSettings(f"{where} is a {type(found).__name__}, not what govern() returns")
    return found

"""Eval specs: the arguments they accept, and where they are found."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai import Agent

from handrail import BadInput, BadSettings, NotFound, Settings, govern
from handrail.evals import EvalSpec
from handrail.evals.spec import observe_nothing
from handrail.examples import support_triage
from handrail.examples.support_triage.evals import support_evals
from handrail.registry import find_eval_spec

AGENTS = """
from pydantic_ai import Agent
from handrail import govern

support = govern(Agent(), name="support")
"""
SPEC = """
from pathlib import Path
from handrail.evals import EvalSpec
{imports}

{name} = EvalSpec(agent=support, cases=Path("cases.yaml"), observe=lambda outcome: {{}})
"""
FUNCTION = """
from pathlib import Path
from handrail.evals import EvalSpec

sorter_evals = EvalSpec(agent=lambda text: {}, name="sorter", cases=Path("cases.yaml"))
nothing = None
"""
CASES = Path("cases.yaml")
agent = govern(Agent(), name="support")


def observe(_outcome: object) -> Mapping[str, Any]:
    return {}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A user's folder; modules imported from it are removed afterwards."""
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)) or name == "shop":
            del sys.modules[name]


def write(folder: Path, module: str, text: str) -> None:
    """Writes a module, given as its path without `.py`."""
    path = folder / f"{module}.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def spec(name: str = "support_evals", imports: str = "") -> str:
    return SPEC.format(name=name, imports=imports)


def settings(folder: Path, target: str = "shop.agents:support", **evals: str) -> Settings:
    return Settings(base=folder, agents={"support": target}, evals=evals)


def test_a_spec_has_its_agents_name() -> None:
    """A governed agent's spec has the agent's name, and a function's spec has the given name."""
    assert EvalSpec(agent=agent, cases=CASES, observe=observe).name == "support"
    function = EvalSpec(agent=lambda _text: {}, name="sorter", cases=CASES)
    assert (function.name, function.observe) == ("sorter", observe_nothing)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"agent": agent}, "support: there is no `observe`; pass a function"),
        ({"agent": agent, "observe": observe, "name": "other"}, "name 'other' of agent support; leave `name` out"),
        ({"agent": observe}, "there is no name; pass `name=`"),
        ({"agent": observe, "name": "sorter", "observe": observe}, "`observe` and `deps` are for governed agents"),
        ({"agent": observe, "name": "sorter", "deps": observe}, "`observe` and `deps` are for governed agents"),
        ({"agent": observe, "name": "sorter", "seconds": 0}, "seconds is 0; give a time above 0"),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], problem: str) -> None:
    """Arguments that are invalid for the kind of agent are refused when the spec is created."""
    with pytest.raises(BadInput, match=problem):
        EvalSpec(cases=CASES, **arguments)


def test_the_reference_agents_spec() -> None:
    """The reference agent's spec is found in the module next to it, not in the data folder of the same name."""
    assert find_eval_spec("support-triage", Settings()) is support_evals
    assert support_evals.agent is support_triage.agent


def test_a_spec_in_the_agents_module(folder: Path) -> None:
    """A spec is found in the agent's own module."""
    write(folder, "shop/agents", AGENTS + spec())
    assert find_eval_spec("support", settings(folder)).name == "support"


@pytest.mark.parametrize("target", ["shop.agents:support", "shop:support"])
def test_a_spec_in_the_evals_module(folder: Path, target: str) -> None:
    """A spec is found in the module `evals` of the agent's package, also if the package imports the agent."""
    write(folder, "shop/__init__", "from .agents import support\n")
    write(folder, "shop/agents", AGENTS)
    write(folder, "shop/evals", spec(imports="from shop.agents import support"))
    assert find_eval_spec("support", settings(folder, target)).name == "support"


def test_a_spec_in_the_evals_module_of_a_folder(folder: Path) -> None:
    """Without a package, the module `evals` is the one in the folder of the agent's module."""
    write(folder, "shop_agents", AGENTS)
    write(folder, "evals", spec(imports="from shop_agents import support"))
    assert find_eval_spec("support", settings(folder, "shop_agents:support")).name == "support"


def test_another_agents_spec_is_not_taken(folder: Path) -> None:
    """Only a spec of this agent is used; without one, the error says where to define it."""
    write(folder, "shop/agents", AGENTS + 'other = govern(Agent(), name="other")\n')
    write(folder, "shop/evals", spec(imports="from shop.agents import other as support"))
    with pytest.raises(BadSettings, match=r"support has no EvalSpec in shop.agents or shop.evals; define one there"):
        find_eval_spec("support", settings(folder))


def test_several_specs(folder: Path) -> None:
    """Several specs are an error unless handrail.toml names one."""
    write(folder, "shop/agents", AGENTS + spec())
    write(folder, "shop/evals", spec("long_evals", "from shop.agents import support, support_evals"))
    with pytest.raises(
        BadSettings, match=r"several EvalSpecs \(shop.agents:support_evals, shop.evals:long_evals\); choose one"
    ):
        find_eval_spec("support", settings(folder))
    chosen = find_eval_spec("support", settings(folder, support="shop.evals:long_evals"))
    assert chosen is sys.modules["shop.evals"].long_evals


def test_a_function_by_its_entry(folder: Path) -> None:
    """A function is found by its entry under `[evals]`, whose key is its name."""
    write(folder, "shop/functions", FUNCTION)
    assert find_eval_spec("sorter", settings(folder, sorter="shop.functions:sorter_evals")).name == "sorter"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (
            {"sorting": "shop.functions:sorter_evals"},
            "evaluates agent sorter; rename the entry from `sorting` to `sorter`",
        ),
        ({"sorting": "shop.functions:nothing"}, "is a NoneType, not an EvalSpec"),
        ({"sorting": "shop.functions:missing"}, "the module has no attribute 'missing'"),
        ({"sorting": "shop.missing:sorter"}, "no module 'shop.missing' in"),
    ],
)
def test_invalid_entries(folder: Path, entry: dict[str, str], problem: str) -> None:
    """An entry that names something else is refused with the entry and advice."""
    write(folder, "shop/functions", FUNCTION)
    with pytest.raises(BadSettings, match=f"evals sorting: .*{problem}"):
        find_eval_spec("sorting", settings(folder, **entry))


def test_an_unknown_name(folder: Path) -> None:
    """An unknown name is refused with the nearest known one."""
    with pytest.raises(NotFound, match=r"no agent 'suport'; did you mean support\?"):
        find_eval_spec("suport", settings(folder))

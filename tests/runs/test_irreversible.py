"""An irreversible tool call is proposed and not executed, whichever way the agent got the tool."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic_ai import Agent, DeferredToolResults, FunctionToolset, ModelRetry, RunContext, Tool
from pydantic_ai.capabilities import HandleDeferredToolCalls
from pydantic_ai.messages import ModelRequest, UserPromptPart

from handrail import Answered, AwaitingApproval, BadInput, Runtime, govern, tool
from handrail.runs.tools import effect_of
from handrail.traces.store.spans import load_trace
from tests.runs.scripts import Count, Script, calls, counts, says

pytestmark = pytest.mark.usefixtures("runtime")


def proposals(outcome: Any) -> list[tuple[str, Any, str]]:
    """Tool, arguments and call id of each approval that an outcome waits for."""
    assert isinstance(outcome, AwaitingApproval)
    return [(approval.tool, approval.arguments, approval.call_id) for approval in outcome.approvals]


REFUND = [("refund", {"cents": 5}, "refund-5")]


class Till:
    """Records what was paid."""

    def __init__(self) -> None:
        self.paid: list[int] = []

    def refund(self, cents: int) -> str:
        """Refunds an amount."""
        self.paid.append(cents)
        return "paid"


@pytest.fixture
def till() -> Till:
    return Till()


def find(number: int) -> int:
    """Finds an order."""
    return number


def governed(script: Script, *tools: Tool[Any], **options: Any) -> Any:
    return govern(Agent(script.model, output_type=Count, tools=tools, **options), name="a")


@pytest.mark.parametrize(
    "declared",
    [lambda pay: tool(pay, effect="irreversible"), lambda pay: Tool(pay, requires_approval=True)],
    ids=["declared", "requires_approval"],
)
async def test_a_proposal(till: Till, declared: Callable[[Any], Tool[Any]]) -> None:
    """The call waits for a person, with its arguments, and nothing is paid."""
    outcome = await governed(Script(says(calls("refund", cents=5))), declared(till.refund)).run("hi", user="u")
    assert (proposals(outcome), outcome.path) == (REFUND, None)
    assert outcome.facts.tools == ()
    assert till.paid == []


async def test_beside_a_reading_tool(till: Till) -> None:
    """Of parallel calls the reading one is executed and the irreversible one proposed."""
    script = Script(says(calls("find", number=1), calls("refund", cents=5), calls("find", number=2)))
    agent = governed(script, tool(find, effect="reads"), tool(till.refund, effect="irreversible"))
    outcome = await agent.run("hi", user="u")
    assert proposals(outcome) == REFUND
    assert outcome.facts.tools == ("find", "find")
    assert till.paid == []


async def test_a_toolset_of_the_run(till: Till) -> None:
    """A tool passed to one run is held back like the agent's own."""
    tools = FunctionToolset([tool(till.refund, effect="irreversible")])
    outcome = await governed(Script(says(calls("refund", cents=5)))).run("hi", user="u", toolsets=[tools])
    assert isinstance(outcome, AwaitingApproval)
    assert till.paid == []


@pytest.mark.parametrize("strategy", ["early", "graceful", "exhaustive"])
async def test_beside_an_answer(till: Till, strategy: str) -> None:
    """A call in the same response as the final answer is not executed either."""
    script = Script(says(*counts(1).parts, calls("refund", cents=5)))
    agent = governed(script, tool(till.refund, effect="irreversible"), end_strategy=strategy)
    await agent.run("hi", user="u")
    assert till.paid == []


async def test_an_agent_with_output_validators(till: Till) -> None:
    """An agent with an output validator can propose, and the validator still checks its answers."""
    checked = Agent(
        Script(says(calls("refund", cents=5)), counts(0), counts(1)).model,
        output_type=Count,
        tools=[tool(till.refund, effect="irreversible")],
    )

    @checked.output_validator
    def more_than_none(output: Count) -> Count:
        if output.count == 0:
            raise ModelRetry("count again")
        return output

    agent = govern(checked, name="a")
    assert isinstance(await agent.run("hi", user="u"), AwaitingApproval)
    answered = await agent.run("hi", user="u")
    assert isinstance(answered, Answered)
    assert answered.output.count == 1
    assert till.paid == []


async def test_an_output_type_of_the_run(till: Till) -> None:
    """A run with its own output type can end in a proposal too."""
    agent = governed(Script(says(calls("refund", cents=5))), tool(till.refund, effect="irreversible"))
    assert isinstance(await agent.run("hi", user="u", output_type=[Count, str]), AwaitingApproval)
    assert till.paid == []


async def test_the_proposals_span(runtime: Runtime, till: Till) -> None:
    """The proposed call's span says that approval is required, and is not an error."""
    agent = governed(Script(says(calls("refund", cents=5))), tool(till.refund, effect="irreversible"))
    outcome = await agent.run("hi", user="u")
    _, spans = await runtime.database.read(load_trace(outcome.facts.trace_id, None))
    [span] = [span for span in spans if span.kind == "tool"]
    assert span.attributes["handrail.approval"] == "required"
    assert span.error_type is None


@pytest.mark.parametrize("registered_on", ["agent", "run"])
async def test_approved_by_a_capability(till: Till, registered_on: str) -> None:
    """A capability that approves everything does not get an irreversible tool executed."""

    async def approve(_ctx: RunContext[Any], requests: Any) -> DeferredToolResults:
        results: DeferredToolResults = requests.build_results(approve_all=True)
        return results

    approving = [HandleDeferredToolCalls(handler=approve)]
    script = Script(says(calls("refund", cents=5)), counts(1))
    pay = tool(till.refund, effect="irreversible")
    of_agent: Any = {"capabilities": approving} if registered_on == "agent" else {}
    of_run: Any = {"capabilities": approving} if registered_on == "run" else {}
    outcome = await governed(script, pay, **of_agent).run("hi", user="u", **of_run)
    assert till.paid == []
    assert isinstance(outcome, AwaitingApproval)


async def test_approved_by_the_caller(till: Till) -> None:
    """Results that the caller passes for deferred calls do not get an irreversible tool executed."""
    history = [ModelRequest([UserPromptPart("hi")]), says(calls("refund", cents=5))]
    results = DeferredToolResults(approvals={"refund-5": True})
    agent = governed(Script(counts(1)), tool(till.refund, effect="irreversible"))
    await agent.run(user="u", message_history=history, deferred_tool_results=results)
    assert till.paid == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"effect": "deletes"}, "use reads, writes or irreversible"),
        ({"effect": "reads", "approver": "requester"}, "only an irreversible tool"),
        ({"effect": "writes", "idempotent": True}, "only an irreversible tool"),
        ({"effect": "irreversible", "approver": "anybody"}, "neither 'requester' nor 'role:NAME'"),
        ({"effect": "irreversible", "approver": "role:"}, "neither 'requester' nor 'role:NAME'"),
    ],
)
def test_bad_declarations(options: dict[str, Any], problem: str) -> None:
    """An invalid effect or approver raises BadInput where the tool is declared."""
    with pytest.raises(BadInput, match=problem):
        tool(find, **options)


def test_declarations() -> None:
    """A tool's effect is the declared one, `irreversible` with Pydantic AI's approval flag, or otherwise unknown."""
    declared = [tool(find, effect="writes"), Tool(find, requires_approval=True), Tool(find)]
    assert [effect_of(declaration.tool_def) for declaration in declared] == ["writes", "irreversible", None]


def test_options() -> None:
    """A declared tool takes Pydantic AI's options, and keeps its own metadata beside Handrail's."""
    declared_tool = tool(find, effect="reads", name="search", metadata={"owner": "shop"})
    assert declared_tool.name == "search"
    assert (declared_tool.metadata or {})["owner"] == "shop"

"""What goes wrong inside a request to a model is the provider's fault, whatever type of exception it is."""

from collections.abc import Iterator
from contextlib import contextmanager

from pydantic_ai.exceptions import AgentRunError, FallbackExceptionGroup, ModelAPIError, UnexpectedModelBehavior
from pydantic_ai.models import Model

from handrail.fallback.retry import MalformedTwice
from handrail.kernel.errors import HandrailError

from .finish import IncompleteAnswer
from .loop_guard import Looping

_TYPED = (ModelAPIError, FallbackExceptionGroup, HandrailError, Looping, MalformedTwice, IncompleteAnswer)
# The method with which every Pydantic AI stream reads from its provider.
_READS_STREAM = "_get_event_iterator"


@contextmanager
def as_provider_error(model: Model) -> Iterator[None]:
    """Raises what a request to a model raises in the block as a `ModelAPIError`.

    A provider that sends nonsense makes its client, or Pydantic AI, raise whatever its own code happens to: IndexError
    for no choices, a validation error for an HTML page. As a `ModelAPIError` it is a fault of the model in the outcome,
    and lets a `FallbackModel` try the next model. Errors whose type says what happened are left as they are.

    Args:
        model: The model that is requested.
    """
    try:
        yield
    except _TYPED:
        raise
    except Exception as error:
        if isinstance(error, AgentRunError) and not isinstance(error, UnexpectedModelBehavior):
            raise
        raise ModelAPIError(model.model_name, f"unusable response: {type(error).__name__}: {error}") from error


def raised_by_stream(error: Exception) -> bool:
    """Whether an error comes from reading a model's stream, and not from the code that consumes it."""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_name == _READS_STREAM:
            return True
        frame = frame.tb_next
    return False

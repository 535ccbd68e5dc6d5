"""The most input tokens that one image can be billed for, by the model that reads it."""

import re

_GPT_4O_MINI = re.compile(r"gpt-4o-mini")
# By the first pattern that the model's name contains. Sources: OpenAI's guide to images and vision, Anthropic's page on
# vision (at most 4,784), Google's on tokens (4,128), xAI's on image understanding (1,792), Mistral's on vision (4,160).
_BY_MODEL = (
    # 2,833 and 8 tiles of 5,667: the tiles of GPT-4o, counted so that an image costs as much as there.
    (_GPT_4O_MINI, 48_169),
    # At most 10,000 patches at the original size, times 2.46 for the smallest models.
    (re.compile(r"gpt-5\.([4-9]|\d\d)"), 24_600),
    # At most 8 tiles of 170, or 1,536 patches times 2.46.
    (re.compile(r"gpt-4o|chatgpt-4o|gpt-4-turbo|gpt-4\.[15]|gpt-5(?!\d)|(?<![a-z0-9])o[134](?![a-z0-9])"), 5_000),
    (re.compile(r"claude|gemini|grok|pixtral|mistral|ministral|magistral"), 5_000),
)


def image_tokens(model_name: str) -> int | None:
    """The most tokens of one image, at the highest level of detail.

    Args:
        model_name: As a provider or a router spells it, such as `gpt-4o` or `anthropic/claude-sonnet-5`.

    Returns:
        The bound; None for a model whose provider publishes none.
    """
    name = model_name.lower()
    return next((tokens for pattern, tokens in _BY_MODEL if pattern.search(name)), None)


def fills_window(model_name: str) -> bool:
    """Whether what a model is billed for also counts towards its context window, as with all but GPT-4o mini.

    Its images are billed for 33 times as many tokens as they have.
    """
    return _GPT_4O_MINI.search(model_name.lower()) is None

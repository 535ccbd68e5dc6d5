"""The built-in models: what their weights are called, how large they are and which bytes are the right ones."""

from dataclasses import dataclass

from handrail.kernel.errors import NotFound

PREFIX = "builtin:"
_HUB = "https://huggingface.co/Qwen"


@dataclass(frozen=True)
class Weights:
    """One published weights file. `sha256` is the hex digest of the official release, `size` its bytes."""

    model: str
    file_name: str
    size: int
    sha256: str
    url: str


SMALL = Weights(
    model="qwen2.5-coder-0.5b",
    file_name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    size=491_400_064,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    url=f"{_HUB}/Qwen2.5-Coder-0.5B-Instruct-GGUF/resolve/main/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
)
LARGE = Weights(
    model="qwen2.5-coder-1.5b",
    file_name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    size=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    url=f"{_HUB}/Qwen2.5-Coder-1.5B-Instruct-GGUF/resolve/main/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
)
CATALOGUE = (SMALL, LARGE)

DEFAULT_BUILTIN = PREFIX + LARGE.model


def builtin_weights(name: str) -> Weights:
    """The weights of a built-in model, named with or without its `builtin:` prefix. Raises NotFound."""
    bare = name.removeprefix(PREFIX)
    for weights in CATALOGUE:
        if weights.model == bare:
            return weights
    known = ", ".join(PREFIX + weights.model for weights in CATALOGUE)
    raise NotFound(f"There is no built-in model {name!r}; there are {known}")

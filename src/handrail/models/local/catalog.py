"""The built-in models: where their weights are published, and which bytes are the official release."""

from dataclasses import dataclass

from handrail.kernel.errors import NotFound
from handrail.models.selection import BUILTIN_PREFIX


@dataclass(frozen=True)
class Weights:
    """One published weights file: `repository` on the Hugging Face hub, `size` in bytes, `sha256` in hex."""

    model: str
    repository: str
    file_name: str
    size: int
    sha256: str


SMALL = Weights(
    model="qwen2.5-coder-0.5b",
    repository="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    file_name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    size=491_400_064,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
)
LARGE = Weights(
    model="qwen2.5-coder-1.5b",
    repository="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    file_name="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    size=1_117_320_768,
    sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
)
CATALOG = (SMALL, LARGE)


def builtin_weights(name: str) -> Weights:
    """The weights of a built-in model.

    Args:
        name: The model's name, with or without its `builtin:` prefix.

    Raises:
        NotFound: There is no such built-in model.
    """
    for weights in CATALOG:
        if weights.model == name.removeprefix(BUILTIN_PREFIX):
            return weights
    known = ", ".join(BUILTIN_PREFIX + weights.model for weights in CATALOG)
    raise NotFound(f"There is no built-in model {name!r}; there are {known}")

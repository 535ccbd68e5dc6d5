"""Errors for a model that cannot be used.

ModelUnavailable            do what the message says, or do without a model
├── WeightsUnavailable      get the built-in model's weights in another way
└── WrongWeights            name another file: these bytes are not the official release
"""

from typing import ClassVar

from handrail.kernel.errors import HandrailError


class ModelUnavailable(HandrailError):
    """No model can be used at present: do what the message says, or do without a model."""

    code: ClassVar[str] = "model_unavailable"


class WeightsUnavailable(ModelUnavailable):
    """The built-in model's weights are not on this machine, or could not be downloaded."""

    code: ClassVar[str] = "weights_unavailable"


class WrongWeights(ModelUnavailable):
    """A weights file is not the official release and is not used."""

    code: ClassVar[str] = "wrong_weights"

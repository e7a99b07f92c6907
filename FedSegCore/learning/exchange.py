"""In which form models and updates travel between server and sites."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Float = Literal["float32", "float16"]


class ExchangeConfig(BaseModel):
    """How many bits of a model and of an update travel; ``federation.compression`` says how.

    Only kernels (floating-point tensors of two axes or more) are shortened: all others together are a small part of a
    model, and running statistics do not bear it.

    Attributes:
        precision: of what a site sends: of the values (``"float32"``), or of the changes to the received ones
            (``"float16"``; ``"int8"``: 255 levels a tensor).
        top_k: share of every kernel's changes that travel, the largest ones; None: all.
        error_feedback: a site adds what rounding and ``top_k`` held back to its next update.
        downlink: precision of the models that a site receives.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["float32", "float16", "int8"] = "float32"
    top_k: Annotated[float, Field(ge=0.001, lt=1.0)] | None = None
    error_feedback: bool = True
    downlink: Float = "float32"

    @property
    def exact(self) -> bool:
        """Whether sites send values to the last bit, not changes."""
        return self.precision == "float32" and self.top_k is None and self.downlink == "float32"

    @property
    def feeds_back(self) -> bool:
        """Whether sites keep what was held back."""
        return self.error_feedback and not self.exact

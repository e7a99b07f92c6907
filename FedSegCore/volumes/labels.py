"""What a federation segments: the label contract, and how a site's own numbers map onto it."""

from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Colour = tuple[
    Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)]
]

NOT_ANNOTATED = "not annotated"
"""What a site's mapping says of a federation label that its annotations do not contain."""


class CodedTerm(BaseModel):
    """A coded concept.

    Attributes:
        scheme: coding scheme designator (``"SCT"`` for SNOMED-CT).
        code: the code value.
        meaning: the code's meaning in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: str = "SCT"
    code: Annotated[str, Field(pattern=r"^[0-9A-Za-z.-]{1,64}$")]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


class Label(BaseModel):
    """One structure of the contract.

    Attributes:
        name: what people read (``"right kidney"``).
        value: its integer in label maps, 1..255.
        type: SNOMED-CT type; with ``modifier`` (laterality) where there is one, as Slicer's terminology has it.
        modifier: laterality or the like.
        category: SNOMED-CT category of the type (``Anatomical Structure`` unless told).
        colour: RGB 0..255.
        single: the structure is one piece (a spleen is, lesions are not): of what a network finds of it, only the
            largest piece is kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=64)]
    value: Annotated[int, Field(ge=1, le=255)]
    type: CodedTerm
    modifier: CodedTerm | None = None
    category: CodedTerm = CodedTerm(code="123037004", meaning="Anatomical Structure")
    colour: Colour
    single: bool = False


class LabelContract(BaseModel):
    """The labels of a federation, in network channel order: channel 0 is background, channel n is ``labels[n - 1]``.

    Raises:
        pydantic.ValidationError: values are not 1..n in order, or names repeat.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=255)]

    @model_validator(mode="after")
    def _values_in_order(self) -> Self:
        if [label.value for label in self.labels] != list(range(1, len(self.labels) + 1)):
            raise ValueError("label values must be 1, 2, 3 ... in order")
        if len({label.name for label in self.labels}) != len(self.labels):
            raise ValueError("label names must differ")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Label names in order of their values."""
        return tuple(label.name for label in self.labels)

    def value_of(self, name: str) -> int:
        """Return the value of the label called ``name``; raises KeyError if there is none."""
        for label in self.labels:
            if label.name == name:
                return label.value
        raise KeyError(name)


class SiteLabelMapping(BaseModel):
    """How one site's label maps become the federation's.

    Attributes:
        values: federation label name → the site's own integers for it (several are merged), or ``"not annotated"``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: dict[str, tuple[int, ...] | str]

    @model_validator(mode="after")
    def _only_known_words(self) -> Self:
        for name, own in self.values.items():
            if isinstance(own, str) and own != NOT_ANNOTATED:
                raise ValueError(f"label {name!r}: give its numbers or {NOT_ANNOTATED!r}")
        return self

    @classmethod
    def identity(cls, contract: LabelContract) -> "SiteLabelMapping":
        """Return the mapping of a site whose label maps use the contract's numbers."""
        return cls(values={label.name: (label.value,) for label in contract.labels})

    def annotated(self, contract: LabelContract) -> tuple[int, ...]:
        """Return the contract values this site annotates, ascending.

        Raises:
            KeyError: a label of the contract is neither mapped nor declared not annotated.
        """
        return tuple(label.value for label in contract.labels if self.values[label.name] != NOT_ANNOTATED)

    def apply(self, array: npt.NDArray[Any], contract: LabelContract) -> npt.NDArray[np.uint8]:
        """Return ``array`` (any shape, the site's integers) as uint8 contract values; unmapped numbers become 0."""
        out = np.zeros(array.shape, np.uint8)
        for value in self.annotated(contract):
            own = self.values[contract.labels[value - 1].name]
            out[np.isin(array, own)] = value
        return out

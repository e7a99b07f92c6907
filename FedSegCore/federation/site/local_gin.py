"""A site's own GIN settings: chosen by looking at samples, kept in its folder, used where a federation lets it."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from FedSegCore.augmentation.config import GinConfig
from FedSegCore.common.errors import BadInputError
from FedSegCore.common.files import write_text
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import GinChosen
from FedSegCore.learning.task import TrainingTask

_MAX_FILE = 64 * 1024


class LocalGin(BaseModel):
    """What a site may choose of GIN; how often it is applied, IPA and the network's width stay the federation's.

    Attributes:
        alpha: range of the blend weight.
        layers: convolution layers.
        kernel_sizes: odd kernel sides to draw from.
        per_batch: one network for a batch instead of one per image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: tuple[Annotated[float, Field(allow_inf_nan=False)], Annotated[float, Field(allow_inf_nan=False)]]
    layers: int
    kernel_sizes: tuple[int, ...]
    per_batch: bool

    @model_validator(mode="after")
    def _fits(self) -> Self:
        GinConfig(**self.model_dump())  # GIN's own bounds hold
        return self

    def within(self, federations: GinConfig) -> GinConfig:
        """Return the federation's settings with these in their place."""
        return federations.model_copy(update=self.model_dump())


def local_gin_file(folder: SiteFolder) -> Path:
    """Return where the settings are kept."""
    return folder.path / "augmentation.json"


def choose_local_gin(folder: SiteFolder, chosen: LocalGin | None) -> None:
    """Keep GIN settings for the rounds to come, None for the federation's; the journal says so first.

    Raises:
        CannotDoHereError: ``journal.*``.
        BadInputError: ``journal.broken``.
    """
    if chosen is None:
        folder.journal.append(GinChosen(own=False))
        local_gin_file(folder).unlink(missing_ok=True)
        return
    low, high = chosen.alpha
    folder.journal.append(
        GinChosen(
            own=True,
            alpha_low=low,
            alpha_high=high,
            layers=chosen.layers,
            kernel_sizes=chosen.kernel_sizes,
            per_batch=chosen.per_batch,
        )
    )
    write_text(local_gin_file(folder), chosen.model_dump_json(indent=2) + "\n", private=True)


def read_local_gin(folder: SiteFolder) -> LocalGin | None:
    """Return the site's own settings, None where it goes by the federation's.

    Raises:
        BadInputError: ``augmentation.unreadable``, ``augmentation.invalid``: a damaged file is not taken for none.
    """
    try:
        with local_gin_file(folder).open("rb") as file:
            content = file.read(_MAX_FILE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInputError(
            "augmentation.unreadable", "The site's GIN settings cannot be read.", "Look at the rights of its folder."
        ) from error
    try:
        return LocalGin.model_validate_json(content)
    except ValidationError as error:
        raise BadInputError(
            "augmentation.invalid",
            "The site's GIN settings are damaged.",
            "Choose them again in the See tab, or remove augmentation.json from the site's folder.",
        ) from error


def with_local_gin(task: TrainingTask, own: LocalGin | None) -> TrainingTask:
    """Return ``task`` with the site's own GIN settings if the federation uses GIN and lets sites choose."""
    augmentation = task.augmentation
    if own is None or augmentation.gin is None or not augmentation.site_gin:
        return task
    changed = augmentation.model_copy(update={"gin": own.within(augmentation.gin)})
    return task.model_copy(update={"augmentation": changed})

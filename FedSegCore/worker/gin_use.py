"""The GIN settings somebody looked at become those a site trains with."""

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from FedSegCore.common.errors import BadInputError
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.local_gin import LocalGin, choose_local_gin

if TYPE_CHECKING:
    from FedSegCore.worker.methods import GinUseParams


def use_gin_settings(params: "GinUseParams") -> dict[str, Any]:
    """Write the settings into the site's folder and its journal.

    Returns:
        ``site``: the site's name; ``own``: whether it now has settings of its own.

    Raises:
        BadInputError: ``gin.bad-settings``, ``site.folder``, ``journal.broken``.
        CannotDoHereError: ``journal.*``.
    """
    folder = SiteFolder.open(params.site)
    try:
        chosen = None if params.settings is None else LocalGin(**params.settings.model_dump())
    except ValidationError as error:
        raise BadInputError("gin.bad-settings", "These GIN settings do not fit.", "Go back to the defaults.") from error
    choose_local_gin(folder, chosen)
    return {"site": folder.settings().name, "own": chosen is not None}

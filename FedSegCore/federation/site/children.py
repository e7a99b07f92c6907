"""How a site's processes are started: with its folder, under the parent that looks after them."""

import os

from FedSegCore.federation.process_group import Child, child_environment
from FedSegCore.federation.site.folder import SiteFolder


def site_child(folder: SiteFolder, name: str, module: str, *arguments: str, threads: int | None = 1) -> Child:
    """Return the child ``name``, to be started from ``FedSegCore.federation.site.<module>``.

    Args:
        folder: the site.
        name: also that of its log.
        module: the module whose ``main`` is run.
        arguments: beside the folder and the parent's id.
        threads: CPU threads it may compute with; None leaves it to the libraries.
    """
    return Child(
        name=name,
        module=f"FedSegCore.federation.site.{module}",
        arguments=("--folder", str(folder.path), "--parent-pid", str(os.getpid()), *arguments),
        environment=child_environment(folder.flower_home, threads),
        log=folder.logs / f"{name}.log",
    )

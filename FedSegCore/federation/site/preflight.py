"""Whether a site can take part, found out layer by layer: what was measured, what fails, what cures it.

The network's layers build on each other: behind the first that fails none is tried. The computer's own are all tried.
"""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.request import getproxies_environment
from urllib.request import proxy_bypass_environment as proxy_bypass  # type: ignore[attr-defined]

from FedSegCore.common.errors import FedSegError
from FedSegCore.common.progress import Progress
from FedSegCore.federation.process_group import child_environment
from FedSegCore.federation.site import preflight_machine as machine
from FedSegCore.federation.site.admission import admission_words
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.preflight_machine import Needs
from FedSegCore.federation.site.preflight_route import Route, split_address
from FedSegCore.federation.site.preflight_tls import Encryption

Layer = tuple[str, Callable[[], str]]


@dataclass(frozen=True)
class Finding:
    """What was found of one layer.

    Attributes:
        layer: its name: ``"proxy"``, ``"name"``, ``"port"``, ``"encryption"``, ``"clock"``, ``"authority"``,
            ``"certificate"``, ``"admission"``, ``"flower"``, ``"app"``, ``"policy"``, ``"budget"``, ``"journal"``,
            ``"disk"``, ``"memory"``, ``"device"``, ``"cohort"``, ``"last message"``.
        ok: it is as it must be.
        code: stable code of what is wrong; empty where nothing is, or where it was not tried.
        words: what was measured, or what is wrong.
        remedy: what cures it; empty where nothing is wrong.
        tried: False for a layer behind one that failed.
    """

    layer: str
    ok: bool
    code: str = ""
    words: str = ""
    remedy: str = ""
    tried: bool = True


def preflight(folder: SiteFolder, progress: Progress, needs: Needs = Needs()) -> tuple[Finding, ...]:  # noqa: B008
    """Check everything a site needs to take part; disturbs neither a site that runs nor its coordinator.

    Args:
        folder: the site.
        progress: told of every layer.
        needs: what the computer must have.

    Raises:
        BadInputError: the site's folder cannot be read.
        CancelledError: cancelled.
    """
    network, own = _network(folder, needs), _own(folder, needs)
    total = len(network) + len(own)
    findings: list[Finding] = []
    blocked = ""
    for layer, look in network:
        progress.update(len(findings) / total, layer)
        found = (
            Finding(layer, False, words=f"not tried: {blocked} comes first", tried=False)
            if blocked
            else _look(layer, look)
        )
        blocked = blocked or ("" if found.ok else layer)
        findings.append(found)
    for layer, look in own:
        progress.update(len(findings) / total, layer)
        findings.append(_look(layer, look))
    progress.update(1.0, "done")
    return tuple(findings)


def first_failure(findings: tuple[Finding, ...]) -> Finding | None:
    """Return the first layer that fails, in the order of the layers; None where all is well."""
    return next((found for found in findings if found.tried and not found.ok), None)


def _network(folder: SiteFolder, needs: Needs) -> list[Layer]:
    settings = folder.settings()
    # what the site's own processes will see, not what this one happens to see
    environment = child_environment(folder.flower_home)
    proxies = _proxies(environment)
    host = split_address(settings.coordinator)[0]
    bypassed = bool(proxy_bypass(host, proxies))
    route = Route(settings.coordinator, proxies, bypassed, needs.timeout_s)
    encryption = Encryption(route, folder.authority_certificate)
    return [
        ("proxy", route.proxy),
        ("name", route.name),
        ("port", route.reach),
        ("encryption", encryption.encryption),
        ("clock", encryption.clock),
        ("authority", encryption.authority),
        ("certificate", encryption.certificate),
        ("admission", lambda: admission_words(folder)),
    ]


def _proxies(environment: dict[str, str]) -> dict[str, str]:
    return {**getproxies_environment(), "no": environment["no_proxy"]}


def _own(folder: SiteFolder, needs: Needs) -> list[Layer]:
    return [
        ("flower", lambda: machine.flower_words(folder)),
        ("app", lambda: machine.app_words(folder)),
        ("policy", lambda: machine.policy_check_words(folder)),
        ("budget", lambda: machine.budget_words(folder)),
        ("journal", lambda: machine.journal_words(folder)),
        ("disk", lambda: machine.disk_words(folder, needs)),
        ("memory", lambda: machine.memory_words(needs)),
        ("device", lambda: machine.device_words(folder)),
        ("cohort", lambda: machine.cohort_words(folder)),
        ("last message", lambda: machine.last_message_words(folder)),
    ]


def _look(layer: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(layer, True, words=look())
    except FedSegError as error:
        return Finding(layer, False, error.code, error.what, error.remedy)

"""Every kind of fault: what it does to a run, and what ends it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from fault_networks import Networks
from fault_proxy import Line
from fault_world import World, full_disk

Undo = Callable[[], None]


@dataclass
class Target:
    """What a fault may reach.

    Attributes:
        world: the federation.
        run: the run's folder.
        draws: the fault's own draws.
        damaged: set where the run's committed state was damaged on purpose.
    """

    world: World
    run: Path
    draws: random.Random
    damaged: bool = False

    def site(self) -> str:
        """Draw a site."""
        return self.draws.choice(sorted(self.world.folders))

    def server_app(self) -> psutil.Process:
        """Return the run's server app; psutil.NoSuchProcess where there is none just now."""
        found = self.world.server_app(self.run)
        if found is None:
            raise psutil.NoSuchProcess(0)
        return found


def _kill(target: Target, name: str, *processes: psutil.Process) -> Undo:
    if not target.world.may_kill(name):
        raise psutil.NoSuchProcess(0)
    for process in processes:
        process.kill()
    return lambda: None


def _pause(process: psutil.Process) -> Undo:
    process.suspend()

    def undo() -> None:
        if process.is_running():
            process.resume()

    return undo


def _trainer(target: Target, site: str) -> psutil.Process:
    return psutil.Process(target.world.site(site).trainer_pid or 0)


def _supernode(target: Target, site: str) -> psutil.Process:
    pid = target.world.site(site).supernode_pid
    if pid is None:
        raise psutil.NoSuchProcess(0)
    return psutil.Process(pid)


def coordinator_kill(target: Target) -> Undo:
    """The coordinator's machine goes down: SuperLink, SuperExec and the run's server app at once."""
    world = target.world
    app = world.server_app(target.run)
    everything = [world.coordinator_process("superlink"), world.coordinator_process("superexec")]
    return _kill(target, "superlink", *everything, *([app] if app else []))


def client_app_kill(target: Target) -> Undo:
    """The process that answers a message is killed, as by a lack of memory."""
    apps = [app for name in target.world.folders for app in target.world.client_apps(name)]
    return _kill(target, "client app", target.draws.choice(apps)) if apps else _nothing()


def site_kill(target: Target) -> Undo:
    """A site's machine goes down: trainer, SuperNode and what they started."""
    site = target.site()
    processes = [_supernode(target, site), _trainer(target, site), *target.world.client_apps(site)]
    return _kill(target, f"{site} supernode", *processes)


def sites_asleep(target: Target) -> Undo:
    """All workstations sleep, as overnight."""
    undone = [_pause(process) for name in target.world.folders for process in target.world.site_processes(name)]

    def undo() -> None:
        for wake in undone:
            wake()

    return undo


def network_cut(target: Target) -> Undo:
    """No site reaches the coordinator: connections end, or nothing comes through any more and nobody is told."""
    network = target.world.network
    target.draws.choice((network.cut, network.silence))()
    return network.mend


def network_slow(target: Target) -> Undo:
    """Everything between sites and coordinator takes a fifth of a second more (behind a proxy)."""
    line = target.world.network
    assert isinstance(line, Line)
    line.delay_s = 0.2

    def undo() -> None:
        line.delay_s = 0.0

    return undo


def site_unplugged(target: Target) -> Undo:
    """One site loses its network (where it has its own)."""
    networks = _networks(target)
    networks.unplug(target.site())
    return networks.mend


def address_changed(target: Target) -> Undo:
    """A site comes from another address (where it has its own network): its connections lead nowhere."""
    _networks(target).change_address(target.site())
    return lambda: None


def _networks(target: Target) -> Networks:
    networks = target.world.network
    assert isinstance(networks, Networks)
    return networks


def clock_wrong(target: Target) -> Undo:
    """A site's clock jumps by an hour, and back."""
    file = target.world.folders[target.site()].flower_home / "clock-skew"
    file.write_text(str(target.draws.choice((-3600, 3600))))
    return lambda: file.unlink(missing_ok=True)


def events_damaged(target: Target) -> Undo:
    """The run's events lose their end in the middle of a line, and get bytes that are no text."""
    file = target.run / "events.jsonl"
    content = file.read_bytes()
    file.write_bytes(content[: target.draws.randint(0, len(content))] + b"\xff\x00{")
    return lambda: None


def state_damaged(target: Target) -> Undo:
    """A bit of the newest committed round is wrong on the disk, and the server app has to read it."""
    app = target.server_app()
    rounds = sorted((target.run / "state" / "CT").glob("round-*"))
    if len(rounds) < 2:
        return _nothing()
    file = target.draws.choice(sorted(rounds[-1].iterdir()))
    app.kill()
    content = bytearray(file.read_bytes())
    content[target.draws.randrange(len(content))] ^= 1 << target.draws.randrange(8)
    file.write_bytes(content)
    target.damaged = True
    return lambda: None


def pointer_damaged(target: Target) -> Undo:
    """The file that says which round counts is emptied, and the server app has to read it."""
    pointer = target.run / "state" / "CT" / "current.json"
    app = target.server_app()
    if not pointer.exists():
        return _nothing()
    app.kill()
    pointer.write_bytes(b"\0" * 60)
    return lambda: None


def site_files_damaged(target: Target) -> Undo:
    """What a site writes about its progress and is told to do becomes nonsense."""
    folder = target.world.folders[target.site()]
    for file in (folder.progress, folder.path / "control.json"):
        if file.exists():
            file.write_bytes(target.draws.randbytes(40))
    return lambda: None


def _nothing() -> Undo:
    raise psutil.NoSuchProcess(0)


KINDS: dict[str, Callable[[Target], Undo]] = {
    "server-app-kill": lambda t: _kill(t, "server app", t.server_app()),
    "server-app-pause": lambda t: _pause(t.server_app()),
    "server-app-full-disk": lambda t: full_disk(t.server_app()),
    "superlink-kill": lambda t: _kill(t, "superlink", t.world.coordinator_process("superlink")),
    "superlink-pause": lambda t: _pause(t.world.coordinator_process("superlink")),
    "superlink-full-disk": lambda t: full_disk(t.world.coordinator_process("superlink")),
    "superexec-kill": lambda t: _kill(t, "superexec", t.world.coordinator_process("superexec")),
    "coordinator-kill": coordinator_kill,
    "trainer-kill": lambda t: _kill(t, "trainer", _trainer(t, t.site())),
    "trainer-pause": lambda t: _pause(_trainer(t, t.site())),
    "trainer-full-disk": lambda t: full_disk(_trainer(t, t.site())),
    "supernode-kill": lambda t: _kill(t, "supernode", _supernode(t, t.site())),
    "supernode-pause": lambda t: _pause(_supernode(t, t.site())),
    "client-app-kill": client_app_kill,
    "site-kill": site_kill,
    "sites-asleep": sites_asleep,
    "network-cut": network_cut,
    "network-slow": network_slow,
    "site-unplugged": site_unplugged,
    "address-changed": address_changed,
    "clock-wrong": clock_wrong,
    "events-damaged": events_damaged,
    "state-damaged": state_damaged,
    "pointer-damaged": pointer_damaged,
    "site-files-damaged": site_files_damaged,
}

LEAST_S = {"sites-asleep": 65.0}
"""How long a fault lasts at least, seconds: Flower strikes a node off that was silent for a minute."""

NODE_AWAY = frozenset({"supernode-kill", "client-app-kill", "site-kill"})
"""Faults after which Flower does not let the site take part for a minute."""


OWN_NETWORKS = frozenset({"site-unplugged", "address-changed"})
"""Faults of sites that have networks of their own."""

BEHIND_PROXY = frozenset({"network-slow"})
"""Faults of sites behind a proxy: nothing in a plain kernel delays packets."""


def kinds_for(world: World, asked: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the kinds to draw from, of those ``asked`` for or of all.

    Left out are those that this network does not know and, of all, with one site those that would only make everybody
    wait for it.

    Raises:
        ValueError: nothing is left.
    """
    unknown = BEHIND_PROXY if isinstance(world.network, Networks) else OWN_NETWORKS
    kinds = asked or tuple(kind for kind in KINDS if len(world.folders) > 1 or kind not in NODE_AWAY)
    known = tuple(kind for kind in kinds if kind not in unknown)
    if not known:
        raise ValueError(f"none of these faults can be done here: {', '.join(kinds)}")
    return known

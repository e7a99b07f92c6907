"""``fedseg site approve``: which app bundles' messages the site answers, and what approving one means."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from FedSegCore.cli.output import console, emit_json
from FedSegCore.common.errors import UsageError

if TYPE_CHECKING:
    from FedSegCore.federation.site.approval import BundleList
    from FedSegCore.federation.site.folder import SiteFolder

_MEANING = (
    "Approving means one thing: messages of this bundle are answered, by the code that is installed here.\n"
    "Nothing of the bundle was kept, and nothing of it is unpacked or run."
)
_MOST_SHOWN = 40


def _say(words: str | Text) -> None:
    # the terminal wraps; a SHA-256 that is cut in two cannot be copied
    console.print(words, soft_wrap=True)


def approve(
    folder: Annotated[Path, typer.Argument(help="The site's folder.")],
    asked: Annotated[
        str | None, typer.Argument(metavar="[BUNDLE_OR_DIGEST]", help="A bundle's file, or (the start of) its SHA-256.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take an approval back.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Show which app bundles were refused and are approved; approve one after seeing what changed, or revoke it."""
    from FedSegCore.federation.site import approval
    from FedSegCore.federation.site.folder import SiteFolder

    site = SiteFolder.open(folder)
    if asked is None:
        if revoke:
            raise UsageError("approval.which", "Which approval is to be taken back?", "Give the bundle's SHA-256.")
        _show_all(approval.installed_bundle(), approval.refused_bundles(site), approval.approved_bundles(site))
    else:
        bundle = _meant(site, asked, revoke)
        if revoke:
            approval.revoke(site, bundle.sha256)
            _say(f"Messages of the bundle {bundle.sha256} are refused from now on.")
        else:
            _show_one(bundle)
            if yes or typer.confirm("Answer messages of this bundle?", err=True):
                approval.approve(site, bundle.sha256)
                _say("Approved; 'fedseg site approve SITE SHA256 --revoke' takes it back.")
            else:
                _say("Nothing was changed.")
    if as_json:
        refused = [listed.model_dump(mode="json") for listed in approval.refused_bundles(site)]
        installed = approval.installed_bundle().sha256
        emit_json({"installed": installed, "approved": list(approval.approved_bundles(site)), "refused": refused})


def _meant(site: "SiteFolder", asked: str, revoke: bool) -> "BundleList":
    from FedSegCore.federation.site import approval

    if revoke:
        known = [digest for digest in approval.approved_bundles(site) if digest.startswith(asked.lower())]
        if len(known) == 1:
            return approval.BundleList(sha256=known[0], bytes=0, complete=False)
    return approval.asked_bundle(site, asked)


def _show_all(installed: "BundleList", refused: list["BundleList"], approved: tuple[str, ...]) -> None:
    _say(f"Installed here, always answered: {installed.sha256} (version {installed.version})")
    for digest in approved:
        _say(f"Approved by this site:           {digest}")
    for bundle in refused:
        if bundle.sha256 not in approved:
            told = f"{len(bundle.files)} files, {bundle.bytes} bytes, version {bundle.version or 'not given'}"
            _say(f"Refused:                         {bundle.sha256} ({told})")
    if not refused:
        _say("No bundle was refused.")


def _show_one(bundle: "BundleList") -> None:
    from FedSegCore import __version__
    from FedSegCore.federation.site import approval

    installed = approval.installed_bundle()
    if bundle.sha256 == installed.sha256:
        _say("This is the bundle of the version installed here; it is always answered.")
        return
    _say(f"Bundle {bundle.sha256}")
    _say(f"  version: {bundle.version or 'not given'}; installed here: {__version__}")
    if not bundle.files:
        _say("  Its files are not known here: no such bundle was refused by this site.")
    found = approval.changes(installed, bundle)
    by_name = {file.name: file for file in bundle.files}
    for word, names in (
        ("added", found.added),
        ("changed", found.changed),
        ("removed", found.removed if bundle.files else ()),
    ):
        for name in names[:_MOST_SHOWN]:
            file = by_name.get(name)
            details = "" if file is None else f", {file.bytes} bytes, SHA-256 {file.sha256[:12] or 'not readable'}"
            warning = "  (would be written outside its folder)" if file is not None and file.escapes else ""
            _say(Text.assemble(f"  {word}: {name}{details}", (warning, "red")))
        if len(names) > _MOST_SHOWN:
            _say(f"  {word}: {len(names) - _MOST_SHOWN} more")
    if bundle.files and not bundle.complete:
        _say(Text("  It could not be read to its end: it is damaged, too large, or made to do harm.", "red"))
    if any(name.endswith((".py", ".pth")) for name in found.added + found.changed):
        _say("  It holds code that the version installed here does not send; that code is not run here.")
    _say(_MEANING)

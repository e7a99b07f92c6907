"""``fedseg site join``: from an invitation to a site of one's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from FedSegCore.cli.output import console, emit_json

if TYPE_CHECKING:
    from FedSegCore.federation.site.joining import Joined


def join(
    invitation: Annotated[Path, typer.Argument(help="The file that the coordinator sent.")],
    folder: Annotated[Path, typer.Argument(help="The site's folder, new or not.")],
    name: Annotated[str, typer.Option(help="The site's name in the federation.")],
    cohort: Annotated[
        Path | None, typer.Option(help="A cohort file (JSON); else add cases with 'fedseg site cohort'.")
    ] = None,
    minimum_cases: Annotated[
        int | None, typer.Option(min=1, help="Patients without whom nothing leaves; else 5. See 'fedseg site policy'.")
    ] = None,
    coordinator_fingerprint: Annotated[
        str | None, typer.Option(help="As the coordinator reads it out; a file of anybody else is refused.")
    ] = None,
    address: Annotated[str | None, typer.Option(help="Which of the coordinator's addresses to use.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; else auto.")] = None,
    new_key: Annotated[bool, typer.Option("--new-key", help="Of a site that was shut out and may come back.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> None:
    """Join with an INVITATION: makes the site's own key, and a request to send to the coordinator.

    For a site that is there already it takes a newer invitation of the same coordinator (other addresses or versions).
    """
    from FedSegCore.federation.site import joining
    from FedSegCore.federation.site.cohort_file import read_cohort_file
    from FedSegCore.federation.site.policy import policy_for

    if cohort is not None:
        read_cohort_file(cohort)
    new = joining.NewSite(cohort, None if minimum_cases is None else policy_for(minimum_cases), device)
    fingerprint = coordinator_fingerprint
    joined = joining.join(
        folder, invitation, name, new, address=address, coordinator_fingerprint=fingerprint, new_key=new_key
    )
    _tell(joined, new_key)
    if as_json:
        emit_json(_plain(joined))


def _plain(joined: "Joined") -> dict[str, Any]:
    told = {"folder": str(joined.folder.path), "request": str(joined.request_file), "again": joined.again}
    coordinator = {"coordinator_fingerprint": joined.invitation.fingerprint, "compared": joined.compared}
    return {**told, **coordinator, "fingerprint": joined.fingerprint}


def _tell(joined: "Joined", new_key: bool) -> None:
    from FedSegCore.federation.site.joining import federation_words

    invitation, settings = joined.invitation, joined.folder.settings()
    lines = [f"{settings.name} joins {invitation.federation} at {settings.coordinator}."]
    lines += [f"  {words}" for words in federation_words(invitation, joined.folder.policy())]
    if joined.compared:
        lines.append(f"The invitation is the coordinator's: its fingerprint is {invitation.fingerprint}, as you said.")
    else:
        lines.append(
            "Nothing proves yet that the invitation is the coordinator's. Telephone, on a number that is not from the "
            f"same mail, and compare the coordinator's fingerprint: {invitation.fingerprint}"
        )
    if joined.again and not new_key:
        lines.append("The site's key is as before: where it is admitted, start the site again and it goes on.")
    lines.append(f"Send the coordinator {joined.request_file}, and read out your fingerprint: {joined.fingerprint}")
    lines.append(f"'fedseg site check {joined.folder.path}' then says whether everything is ready.")
    for line in lines:
        console.print(line, soft_wrap=True)

"""``fedseg site cohort``: which cases the site trains on, and who consented."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.table import Column, Table
from rich.text import Text

from FedSegCore.cli.output import console, emit_json, progress_bar
from FedSegCore.common.errors import BadInputError, UsageError

if TYPE_CHECKING:
    from FedSegCore.federation.site.case_checks import CaseFinding
    from FedSegCore.federation.site.case_intake import CaseOffer, CheckedCase
    from FedSegCore.federation.site.cohort_index import Consent, StoredCase
    from FedSegCore.federation.site.cohort_store import CohortStore

cohort = typer.Typer(no_args_is_help=True, help="The cases that a site trains on: checked copies, each with consent.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Site = Annotated[Path, typer.Argument(help="The site's folder.")]
Case = Annotated[str, typer.Argument(help="The case, as 'list' shows it.")]
Contract = Annotated[
    Path | None, typer.Option(help="The federation's file (TOML), where no invitation says which structures there are.")
]
By = Annotated[str | None, typer.Option("--consent-by", help="Who consents to training on it; without, it waits.")]
ByName = Annotated[
    list[str] | None,
    typer.Option("--by-name", help="A structure of which an earlier --map or --not-annotated shall hold no more."),
]
On = Annotated[datetime | None, typer.Option("--on", formats=["%Y-%m-%d"], help="Day of the consent; else today.")]


@cohort.command("list")
def list_cases(site: Site, as_json: Json = False) -> None:
    """List the site's cases: role, structures, consent."""
    index = _store(site).index()
    narrow = (Column(name, no_wrap=True) for name in ("case", "role"))
    table = Table(*narrow, "patient", "file", "consent", box=None, pad_edge=False)
    for case in index.cases:
        table.add_row(case.case, case.role, case.patient, case.title, _consent_words(case))
    console.print(table)
    used = [case for case in index.cases if case.consented]
    trained = sum(case.role == "train" for case in used)
    console.print(
        f"{trained} cases to train on, {len(used) - trained} to score on, of {len(index.cases)} in the store."
    )
    if as_json:
        emit_json(index.model_dump(mode="json", exclude={"former", "secret"}))


@cohort.command()
def add(
    site: Site,
    image: Annotated[Path, typer.Argument(help="Image file or DICOM folder.")],
    labels: Annotated[Path, typer.Argument(help="Segmentation (.seg.nrrd) or label map on the image's grid.")],
    patient: Annotated[str, typer.Option(help="Your id of the patient; stays in the store.")],
    modality: Annotated[str | None, typer.Option(help="CT, MR, US …, where the file does not say.")] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="STRUCTURE=SEGMENT or STRUCTURE=1,2: your names or numbers.")
    ] = None,
    not_annotated: Annotated[list[str] | None, typer.Option(help="A structure that you do not outline.")] = None,
    by_name: ByName = None,
    role: Annotated[str | None, typer.Option(help="train or validation; else chosen by patient.")] = None,
    accept: Annotated[list[str] | None, typer.Option(help="Code of a finding that is right in this patient.")] = None,
    contract: Contract = None,
    consent_by: By = None,
    consent_on: On = None,
    only_check: Annotated[bool, typer.Option("--only-check", help="Say what is found, add nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Check a case and copy it into the site's private store; the given files stay as they are."""
    from FedSegCore.federation.site.case_intake import CaseOffer

    if role not in (None, "train", "validation"):
        raise UsageError("options.invalid", "There is no such role.", "Give train or validation.")
    chosen = cast(Literal["train", "validation"] | None, role)
    naming = _naming(mapping or [], not_annotated or [], by_name or [])
    offer = CaseOffer(image, labels, patient, modality, naming, chosen, tuple(accept or ()))
    store = _store(site, contract)
    if only_check:
        _check_only(store, offer, as_json)
    else:
        _add(store, offer, _consent(consent_by, consent_on), as_json)


def _check_only(store: "CohortStore", offer: "CaseOffer", as_json: bool) -> None:
    from FedSegCore.federation.site.case_intake import CaseRefusedError

    checked = store.check(offer)
    _show(checked.findings)
    if as_json:
        emit_json({"added": None, "findings": [_plain(found) for found in checked.findings]})
    if checked.refused:
        raise CaseRefusedError(checked.refused)
    console.print("The case can be added.")


def _add(store: "CohortStore", offer: "CaseOffer", consent: "Consent | None", as_json: bool) -> None:
    told: dict[str, Any] = {"added": None}

    def show(checked: "CheckedCase") -> None:
        _show(checked.findings)
        told["findings"] = [_plain(found) for found in checked.findings]
        if as_json and checked.refused:
            emit_json(told)

    case = store.add(offer, consent, show)
    console.print(f"Added as {case.case} ({case.role}). Consent: {_consent_words(case)}.")
    if as_json:
        emit_json({**told, "added": case.case, "role": case.role})


@cohort.command("import")
def import_cases(
    site: Site,
    cohort_file: Annotated[Path, typer.Argument(help="A cohort file (JSON).")],
    contract: Contract = None,
    consent_by: By = None,
    consent_on: On = None,
    as_json: Json = False,
) -> None:
    """Add all cases of a cohort file; those that cannot be used are named and left out."""
    from FedSegCore.federation.site.cohort_file import read_cohort_file

    store = _store(site, contract)
    described = read_cohort_file(cohort_file)
    added: list[str] = []
    refused: dict[str, str] = {}
    with progress_bar("Cases") as progress:
        for number, entry in enumerate(described.cases):
            progress.update(number / len(described.cases), f"case {number + 1} of {len(described.cases)}")
            offer: CaseOffer = store.take_over(entry, described, cohort_file.absolute().parent)
            try:
                added.append(store.add(offer, _consent(consent_by, consent_on)).case)
            except BadInputError as error:
                refused[entry.case] = error.code
                console.print(f"{entry.case} is left out. {error.code}: {error.what} {error.remedy}", soft_wrap=True)
    console.print(f"{len(added)} cases were added, {len(refused)} left out.")
    if as_json:
        emit_json({"added": added, "refused": refused})


@cohort.command()
def folder(
    site: Site,
    images: Annotated[Path, typer.Argument(help="A folder with NAME.nrrd and NAME.seg.nrrd of every patient NAME.")],
    modality: Annotated[str | None, typer.Option(help="CT, MR, US or ES; else as the files say.")] = None,
    mapping: Annotated[
        list[str] | None, typer.Option("--map", help="STRUCTURE=your segments' names or numbers; may be given again.")
    ] = None,
    not_annotated: Annotated[
        list[str] | None, typer.Option("--not-annotated", help="A structure that the files do not outline.")
    ] = None,
    by_name: ByName = None,
    contract: Contract = None,
    consent_by: By = None,
    consent_on: On = None,
    as_json: Json = False,
) -> None:
    """Add all images of a folder that have a segmentation; those that cannot be used are named and left out."""
    from FedSegCore.federation.site.case_folder import add_folder
    from FedSegCore.federation.site.case_intake import CaseOffer

    like = CaseOffer(Path(), Path(), "", modality, _naming(mapping or [], not_annotated or [], by_name or []))
    with progress_bar("Cases") as progress:
        taken = add_folder(_store(site, contract), images, like, _consent(consent_by, consent_on), progress)
    for one in taken.left_out:
        console.print(f"{one.name} is left out. {one.code}: {one.words}", soft_wrap=True)
    console.print(f"{len(taken.added)} cases were added, {len(taken.left_out)} left out.")
    if as_json:
        refused = {one.name: one.code for one in taken.left_out}
        emit_json({"added": [case.case for case in taken.added], "refused": refused})


@cohort.command()
def consent(
    site: Site,
    case: Case,
    by: Annotated[str, typer.Option("--by", help="Who consents, or who recorded the consent.")],
    on: On = None,
) -> None:
    """Note the consent to train on a case; it takes part from the next round on."""
    _store(site).consent(case, by, on.date() if on else None)
    console.print("Noted. The case takes part from the next round on.")


@cohort.command()
def revoke(site: Site, case: Case, on: On = None) -> None:
    """Take the consent back: the case is in no further round; what was learned before stays in the models."""
    _store(site).revoke(case, on.date() if on else None)
    console.print("Noted. The case is in no further round; what rounds before learned from it stays in their models.")


@cohort.command()
def remove(site: Site, case: Case) -> None:
    """Delete the store's copy of a case."""
    _store(site).remove(case)
    console.print("The store's copy was deleted; your own files were not touched.")


@cohort.command()
def check(site: Site, contract: Contract = None, as_json: Json = False) -> None:
    """Check all cases of the store again; exit code 3 if one cannot be used."""
    store = _store(site, contract)
    found = {case.case: store.check_stored(case.case) for case in store.index().cases}
    for case, findings in found.items():
        if findings:
            console.print(f"Case {case}:")
            _show(findings)
    if as_json:
        emit_json({case: [_plain(finding) for finding in findings] for case, findings in found.items()})
    bad = sum(any(finding.refuses for finding in findings) for findings in found.values())
    if bad:
        raise BadInputError(
            "cohort.bad-cases", f"{bad} of {len(found)} cases cannot be used.", "See what is said of each above."
        )
    console.print(f"All {len(found)} cases can be used.")


def _store(site: Path, contract: Path | None = None) -> "CohortStore":
    from FedSegCore.federation.config import read_federation_config
    from FedSegCore.federation.site.cohort_store import CohortStore
    from FedSegCore.federation.site.folder import SiteFolder

    labels = None if contract is None else read_federation_config(contract).contract
    return CohortStore(SiteFolder.open(site), labels)


def _naming(
    mapping: list[str], not_annotated: list[str], by_name: list[str]
) -> dict[str, tuple[str, ...] | str | None]:
    from FedSegCore.volumes.labels import NOT_ANNOTATED

    naming: dict[str, tuple[str, ...] | str | None] = dict.fromkeys(by_name)
    naming |= dict.fromkeys(not_annotated, NOT_ANNOTATED)
    for text in mapping:
        name, equals, own = text.partition("=")
        words = tuple(word.strip() for word in own.split(",") if word.strip())
        if not equals or not words:
            raise UsageError(
                "options.invalid", "--map is STRUCTURE=SEGMENT.", "Example: --map liver=6 --map 'lesion=HCC'."
            )
        naming[name.strip()] = words
    return naming


def _consent(by: str | None, on: datetime | None) -> "Consent | None":
    from FedSegCore.federation.site.cohort_index import consent_of

    return None if by is None else consent_of(by, on.date() if on else None)


def _consent_words(case: "StoredCase") -> str:
    if not case.consents:
        return "none yet: not used"
    last = case.consents[-1]
    if last.revoked is not None:
        return f"taken back {last.revoked}: not used"
    return f"{last.by}, {last.given}"


def _show(findings: "tuple[CaseFinding, ...]") -> None:
    for found in findings:
        mark = ("no", "red") if found.refuses else ("look", "yellow")
        console.print(Text.assemble("  ", mark, f" {found.code}: {found.words} {found.remedy}"), soft_wrap=True)


def _plain(found: "CaseFinding") -> dict[str, Any]:
    return {"code": found.code, "refuses": found.refuses, "words": found.words, "remedy": found.remedy}

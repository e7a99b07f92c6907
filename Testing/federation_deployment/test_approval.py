"""Which app bundles a site answers: refused ones are listed, never unpacked; approvals are journalled and revocable."""

import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from FedSegCore.common.errors import BadInputError, UsageError
from FedSegCore.federation.bundle import bundle_digest, thin_bundle
from FedSegCore.federation.site import approval
from FedSegCore.federation.site.folder import SiteFolder
from FedSegCore.federation.site.journal_entries import BundleApproved

CODE = b"raise SystemExit('ran')\n"


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def ours() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(thin_bundle())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_is_listed_by_names_sizes_and_hashes() -> None:
    content = zipped({**ours(), "FedSegCore/__init__.py": CODE})
    listed = approval.list_bundle(content)
    assert (listed.sha256, listed.bytes, listed.complete) == (hashlib.sha256(content).hexdigest(), len(content), True)
    by_name = {file.name: file for file in listed.files}
    assert by_name.keys() == {*ours(), "FedSegCore/__init__.py"}
    assert by_name["FedSegCore/__init__.py"].bytes == len(CODE)
    assert by_name["FedSegCore/__init__.py"].sha256 == hashlib.sha256(CODE).hexdigest()
    assert listed.version == approval.installed_bundle().version != ""


def test_changes_are_told_by_file() -> None:
    other = ours()
    other["pyproject.toml"] += b"# changed\n"
    other["sitecustomize.py"] = CODE
    del other[".info/CONTENT"]
    found = approval.changes(approval.installed_bundle(), approval.list_bundle(zipped(other)))
    assert (found.added, found.changed, found.removed) == (
        ("sitecustomize.py",),
        ("pyproject.toml",),
        (".info/CONTENT",),
    )


@pytest.mark.parametrize(
    "name", ["../escaped.py", "a/../../escaped.py", "/etc/cron.d/x", "..\\escaped.py", "C:\\autoexec.bat", "C:x"]
)
def test_a_name_that_leaves_the_folder_is_marked_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    (listed,) = approval.list_bundle(zipped({name: CODE})).files
    assert listed.escapes
    assert not approval.list_bundle(zipped({"a/b.py": CODE})).files[0].escapes
    assert list(tmp_path.rglob("*")) == [inner]


def test_bundles_made_to_do_harm_are_listed_in_bounded_memory_and_time() -> None:
    bomb = zipped({"zeros": b"\0" * (40 * 1024**2)})
    assert len(bomb) < 1024**2
    assert not approval.list_bundle(bomb).complete
    many = approval.list_bundle(zipped({f"f{n}": b"" for n in range(1500)}))
    assert (len(many.files), many.complete) == (1000, False)
    (unread,) = approval.list_bundle(zipped({"lzma": CODE}, zipfile.ZIP_LZMA)).files
    assert unread.sha256 == ""
    (odd,) = approval.list_bundle(zipped({"a\x1b[31m\nb" + "c" * 500: CODE})).files
    assert odd.name.isprintable()
    assert len(odd.name) == 200


@given(st.binary(max_size=200), st.integers(0, 400), st.binary(max_size=8))
def test_whatever_comes_gives_a_list(content: bytes, place: int, patch: bytes) -> None:
    for tried in (content, thin_bundle()[:place], thin_bundle()[:place] + patch + thin_bundle()[place + len(patch) :]):
        listed = approval.list_bundle(tried)
        assert listed.sha256 == hashlib.sha256(tried).hexdigest()
        assert approval.BundleList.model_validate_json(listed.model_dump_json()) == listed


def test_refused_bundles_are_kept_as_lists_and_not_without_end(site: SiteFolder) -> None:
    for number in range(approval.MOST_KEPT + 5):
        approval.note_refused(site, zipped({f"code{number}.py": CODE}))
        approval.note_refused(site, zipped({f"code{number}.py": CODE}))
    assert len(approval.refused_bundles(site)) == approval.MOST_KEPT
    kept = [file for file in (site.path / "refused").rglob("*") if file.is_file()]
    assert {file.suffix for file in kept} == {".json"}
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in kept)
    assert CODE.strip() not in b"".join(file.read_bytes() for file in kept)


def test_approving_and_revoking_are_journalled_and_take_effect(site: SiteFolder) -> None:
    digest = bundle_digest(zipped({"a.py": CODE}))
    assert not site.approves(digest)
    approval.approve(site, digest)
    approval.approve(site, digest)
    assert site.approves(digest)
    assert approval.approved_bundles(site) == (digest,)
    assert stat.S_IMODE((site.path / "approved.json").stat().st_mode) == 0o600
    approval.revoke(site, digest)
    assert not site.approves(digest)
    told = [line.entry for line in site.journal.lines() if isinstance(line.entry, BundleApproved)]
    assert told == [BundleApproved(sha256=digest, approved=True), BundleApproved(sha256=digest, approved=False)]
    with pytest.raises(BadInputError, match="not-approved"):
        approval.revoke(site, digest)


def test_what_cannot_be_journalled_is_not_approved(site: SiteFolder) -> None:
    (file,) = (site.path / "journal").glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-3])
    digest = "a" * 64
    with pytest.raises(BadInputError, match=r"journal\.broken"):
        approval.approve(site, digest)
    assert not site.approves(digest)


def test_a_damaged_list_of_approvals_is_not_overwritten(site: SiteFolder) -> None:
    (site.path / "approved.json").write_text("damaged")
    with pytest.raises(BadInputError) as refused:
        approval.approve(site, "a" * 64)
    assert refused.value.code == "approval.unreadable"
    assert (site.path / "approved.json").read_text() == "damaged"


def test_a_bundle_is_meant_by_a_file_or_its_hash(site: SiteFolder, tmp_path: Path) -> None:
    content = zipped({"a.py": CODE})
    file = tmp_path / "app.fab"
    file.write_bytes(content)
    assert approval.asked_bundle(site, str(file)).sha256 == bundle_digest(content)
    with pytest.raises(BadInputError, match=r"approval\.unknown"):
        approval.asked_bundle(site, bundle_digest(content)[:12])
    assert approval.asked_bundle(site, bundle_digest(content)).files == ()
    approval.note_refused(site, content)
    assert approval.asked_bundle(site, bundle_digest(content)[:12].upper()).files[0].name == "a.py"
    lists = site.path / "refused"
    twin = json.loads((lists / f"{bundle_digest(content)}.json").read_text())
    twin["sha256"] = bundle_digest(content)[:20] + "0" * 44
    (lists / "twin.json").write_text(json.dumps(twin))
    with pytest.raises(UsageError, match=r"approval\.ambiguous"):
        approval.asked_bundle(site, bundle_digest(content)[:12])


def test_the_command_shows_what_changed_and_asks(
    site: SiteFolder, fedseg: Callable[..., SimpleNamespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = zipped({**ours(), "FedSegCore/client.py": CODE, "../escaped.py": CODE, "[red]x": b""})
    approval.note_refused(site, content)
    shown = fedseg("site", "approve", site.path, "--json")
    digest = bundle_digest(content)
    assert shown.code == 0
    assert digest in shown.err
    told = json.loads(shown.out.splitlines()[-1])
    assert (told["installed"], told["approved"]) == (bundle_digest(thin_bundle()), [])
    assert [listed["sha256"] for listed in told["refused"]] == [digest]

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    asked = fedseg("site", "approve", site.path, digest[:10])
    assert "Nothing was changed." in asked.err
    assert not site.approves(digest)
    yes = fedseg("site", "approve", site.path, digest[:10], "--yes")
    assert yes.code == 0
    for words in (
        f"added: FedSegCore/client.py, {len(CODE)} bytes",
        "would be written outside its folder",
        "added: [red]x",
        "by the code that is installed here",
        "that code is not run here",
    ):
        assert words in yes.err
    assert site.approves(digest)
    assert fedseg("site", "approve", site.path, digest[:10], "--revoke").code == 0
    assert not site.approves(digest)
    assert "approval" in fedseg("site", "journal", site.path).err
    assert fedseg("site", "approve", site.path, "--revoke").code == 2
    assert fedseg("site", "approve", site.path, "nonsense").code == 3

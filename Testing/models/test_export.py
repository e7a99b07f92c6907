"""Releases for people outside the federation: exported, taken in again, and no zip that does anything else."""

import hashlib
import json
import stat
import zipfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_release import card_fields, make_weights

from FedSegCore.common.errors import BadInputError, FedSegError, UsageError
from FedSegCore.federation.coordinator.folder import CoordinatorFolder, CoordinatorSettings
from FedSegCore.models import export
from FedSegCore.models.export import export_release, import_release
from FedSegCore.models.release import Release, open_release, publish_release
from FedSegCore.models.signing import load_or_make_key, public_key_of


@pytest.fixture
def release(tmp_path) -> Release:
    key = Ed25519PrivateKey.generate()
    return open_release(publish_release(tmp_path / "own", card_fields(), make_weights(), key))


@pytest.mark.parametrize("out", ["folder", "some.zip"])
def test_what_is_exported_can_be_taken_in_and_is_the_same(out, release, tmp_path):
    written = export_release(release, tmp_path / out)
    taken = import_release(written, tmp_path / "theirs")
    assert (taken.id, taken.signer, taken.trusted) == (release.id, release.signer, False)
    assert taken.card == release.card
    assert taken.weights()["a.count"] == 7
    again = import_release(written, tmp_path / "theirs")
    assert again.path == taken.path
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == [release.id]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_people_find_what_they_need_beside_the_weights(release, tmp_path):
    folder = export_release(release, tmp_path / "folder")
    text = (folder / "README.txt").read_text(encoding="utf-8")
    assert release.signer in text
    assert "not a medical device" in text
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    with pytest.raises(UsageError) as caught:
        export_release(release, folder)
    assert caught.value.code == "output.exists"


def test_only_trusted_signers_are_taken_in(release, tmp_path):
    written = export_release(release, tmp_path / "some.zip")
    with pytest.raises(BadInputError) as caught:
        import_release(written, tmp_path / "theirs", {b"\0" * 32})
    assert caught.value.code == "release.signer-unknown"
    assert list((tmp_path / "theirs").iterdir()) == []


def test_another_release_of_the_same_name_is_not_replaced(release, tmp_path):
    written = export_release(release, tmp_path / "some.zip")
    publish_release(tmp_path / "theirs", card_fields(), make_weights(1), Ed25519PrivateKey.generate())
    before = (tmp_path / "theirs" / release.id / "card.json").read_bytes()
    with pytest.raises(BadInputError) as caught:
        import_release(written, tmp_path / "theirs")
    assert caught.value.code == "import.exists"
    assert (tmp_path / "theirs" / release.id / "card.json").read_bytes() == before


def rezipped(source: Path, target: Path, change) -> Path:
    """Write ``source`` anew with its entries as ``change`` gives them: (name, bytes, ZipInfo changes)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name, data, attributes in change([(info.filename, old.read(info), {}) for info in old.infolist()]):
            info = zipfile.ZipInfo(name)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            new.writestr(info, data)
    return target


LINK = (stat.S_IFLNK | 0o777) << 16

HOSTILE = {
    "climbs out": lambda entries: [*entries, ("../../evil.txt", b"x", {})],
    "absolute": lambda entries: [*entries, ("/etc/evil", b"x", {})],
    "with a drive": lambda entries: [*entries, ("C:\\evil.txt", b"x", {})],
    "something more": lambda entries: [*entries, ("demo-CT-v1/run.py", b"x", {})],
    "twice": lambda entries: [*entries, (f"other/{entries[0][0].rpartition('/')[2]}", b"x", {})],
    "a link": lambda entries: [(n, d, {"external_attr": LINK} if "pub" in n else a) for n, d, a in entries],
    "something less": lambda entries: [entry for entry in entries if not entry[0].endswith(".sig")],
    "changed weights": lambda entries: [(n, d + b"x" if "weights" in n else d, a) for n, d, a in entries],
    "changed card": lambda entries: [(n, d.replace(b"demo", b"Demo") if "json" in n else d, a) for n, d, a in entries],
    "too large": lambda entries: [(n, b" " * 2**21 if n.endswith("card.json") else d, a) for n, d, a in entries],
    "many": lambda entries: [*entries, *((f"d{n}/", b"", {}) for n in range(40))],
}  # fmt: skip


@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_zip_is_refused_and_writes_nothing(how, release, tmp_path):
    good = export_release(release, tmp_path / "good.zip")
    (tmp_path / "inner").mkdir()
    bad = rezipped(good, tmp_path / "inner" / "bad.zip", HOSTILE[how])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BadInputError) as caught:
        import_release(bad, tmp_path / "inner" / "theirs")
    assert caught.value.code.split(".")[0] in ("import", "release")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "inner" / "theirs"])


@pytest.mark.parametrize("cut", [0, 10, 200, -30])
def test_a_damaged_file_is_refused(cut, release, tmp_path):
    data = export_release(release, tmp_path / "good.zip").read_bytes()
    for number, damaged in enumerate((data[:cut], data[:100] + bytes(40) + data[140:], b"Dear colleague")):
        path = tmp_path / f"bad{number}.zip"
        path.write_bytes(damaged)
        with pytest.raises(FedSegError) as caught:
            import_release(path, tmp_path / "theirs")
        assert caught.value.code.split(".")[0] in ("import", "release")
    with pytest.raises(BadInputError):
        import_release(tmp_path / "absent.zip", tmp_path / "theirs")


@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_come_give_the_release_or_a_coded_error(data, release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    content = bytearray(export_release(release, folder / "good.zip").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(1, 8))] = data.draw(st.binary(max_size=8))
    (folder / "bad.zip").write_bytes(content)
    code, taken = "", None
    try:
        taken = import_release(folder / "bad.zip", folder / "theirs")
    except FedSegError as error:
        code = error.code
    if taken is None:
        assert code.split(".")[0] in ("import", "release")
        assert list((folder / "theirs").iterdir()) == []
    else:
        assert taken.card == release.card


def test_the_size_a_zip_declares_is_not_believed(release, tmp_path, monkeypatch):
    monkeypatch.setitem(export.LARGEST, "weights.safetensors", 100)
    with pytest.raises(BadInputError) as caught:
        import_release(export_release(release, tmp_path / "good.zip"), tmp_path / "theirs")
    assert caught.value.code == "import.too-large"


def test_the_commands(fedseg, tmp_path):
    coordinator = CoordinatorFolder.create(
        tmp_path / "coord", CoordinatorSettings(federation="liver", hosts=("localhost",))
    )
    key = load_or_make_key(coordinator.release_key)
    publish_release(coordinator.releases, card_fields(), make_weights(), key)
    strange = publish_release(
        coordinator.releases, card_fields("strange"), make_weights(), Ed25519PrivateKey.generate()
    )
    zipped = tmp_path / "demo.zip"
    done = fedseg("coordinator", "export", coordinator.path, "demo-CT", "--out", zipped, "--json")
    assert done.code == 0, done.err
    signer = json.loads(done.out)["signer"]
    refused = fedseg("coordinator", "export", coordinator.path, strange.name, "--out", tmp_path / "no.zip")
    assert (refused.code, "release.signer-unknown" in refused.err) == (3, True)

    (tmp_path / "key.pub").write_bytes((coordinator.releases / "demo-CT-v1" / "coordinator.pub").read_bytes())
    own = ("--releases", tmp_path / "own", "--trusted", tmp_path / "key.pub", "--json")
    done = fedseg("releases", "import", zipped, *own)
    assert json.loads(done.out) == {"release": "demo-CT-v1", "signer": signer, "trusted": True}
    done = fedseg("releases", "list", *own)
    assert [row["id"] for row in json.loads(done.out)["releases"]] == ["demo-CT-v1"]
    assert open_release(tmp_path / "own" / "demo-CT-v1", {public_key_of(key)}).trusted

    theirs = tmp_path / "theirs"
    done = fedseg("releases", "import", zipped, "--releases", theirs)
    assert signer in done.err
    assert "fingerprint of the coordinator's releases" in done.err
    named = theirs / "demo-CT-v1" / "coordinator.pub"
    assert str(named) in done.err
    done = fedseg("releases", "list", "--releases", theirs, "--trusted", named, "--json")
    assert json.loads(done.out)["releases"][0]["trusted"]
    assert f"{signer}  of its releases" in fedseg("coordinator", "status", coordinator.path).err

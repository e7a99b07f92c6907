"""Files that are whole or not there: the same bytes on every system, and patience with who holds them for a moment."""

from collections.abc import Callable
from pathlib import Path

import pytest

from FedSegCore.common import files
from FedSegCore.common.files import whole_file, whole_folder, write_json, write_text


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[Path]]:
    """Return ``held(times)``: renaming is refused so often, as on Windows while a virus scanner reads; what was tried.

    A file or folder that stays held is tried once a pause, which takes no time here.
    """
    rename, tried = Path.replace, []
    monkeypatch.setattr(files.time, "sleep", lambda _seconds: None)

    def hold(times: int) -> list[Path]:
        def replace(beside: Path, target: Path) -> Path:
            tried.append(target)
            if len(tried) <= times:
                raise PermissionError(5, "Access is denied", str(beside))
            return rename(beside, target)

        monkeypatch.setattr(Path, "replace", replace)
        return tried

    return hold


def write_folder(target: Path) -> None:
    with whole_folder(target) as beside:
        (beside / "file").write_bytes(b"content")


def write_file(target: Path) -> None:
    with whole_file(target) as beside:
        beside.write_bytes(b"content")


@pytest.mark.parametrize("write", [write_folder, write_file])
def test_what_is_held_for_a_moment_gets_its_name_a_moment_later(tmp_path: Path, held, write) -> None:
    tried = held(3)
    write(tmp_path / "target")
    assert tried == [tmp_path / "target"] * 4
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


@pytest.mark.parametrize("write", [write_folder, write_file])
def test_what_stays_held_is_an_error_and_leaves_nothing(tmp_path: Path, held, write) -> None:
    tried = held(1000)
    with pytest.raises(PermissionError):
        write(tmp_path / "target")
    assert 1 < len(tried) < 1000
    assert list(tmp_path.iterdir()) == []


def test_a_lasting_file_has_its_name_on_the_disk_whatever_the_disk_says_to_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[Path, str]] = []

    def sync(folder: Path) -> None:
        synced.append((folder, (folder / "a.txt").read_text()))
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(files, "sync_folder", sync)
    write_text(tmp_path / "a.txt", "former")
    assert synced == []
    write_text(tmp_path / "a.txt", "present", lasting=True)
    assert synced == [(tmp_path, "present")]


def test_text_is_the_same_bytes_on_every_system(tmp_path: Path, windows_lines: None) -> None:
    (tmp_path / "plain").write_text("one\ntwo\n", encoding="utf-8")
    assert (tmp_path / "plain").read_bytes() == b"one\r\ntwo\r\n"  # the rule that is tried here
    write_text(tmp_path / "text", "one\ntwo\n")
    write_json(tmp_path / "json", {"a": 1})
    assert (tmp_path / "text").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "json").read_bytes() == b'{\n  "a": 1\n}\n'

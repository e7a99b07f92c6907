"""Names are fit for files and folders on every system, wherever they come in."""

import pytest
from pydantic import TypeAdapter, ValidationError

from FedSegCore.common.errors import UsageError
from FedSegCore.common.names import Name, is_name
from FedSegCore.common.validation import problems_of
from FedSegCore.federation.coordinator.follow import checked_run_name
from FedSegCore.federation.release_messages import ReleaseId

FIT = ["north", "N", "St. Mary 2", "a_b-c.d", "console", "com", "com10", "my con", "nul-CT", "x" * 64, "dash-"]
UNFIT = ["", " north", ".north", "north.", "north ", "north. ", "n/a", "n\\a", "n:a", "x" * 65, "north\n", "n\0"]
DEVICES = ["CON", "nul", "Aux", "prn", "COM1", "lpt9", "COM1.txt", "con.", "nul .x", "AUX.tar.gz"]


def takes(kind: object, text: str) -> bool:
    try:
        return bool(TypeAdapter(kind).validate_python(text) == text)
    except ValidationError:
        return False


@pytest.mark.parametrize("text", FIT)
def test_what_is_fit_for_a_file_name_is_a_name(text: str) -> None:
    assert (takes(Name, text), is_name(text)) == (True, True)
    assert takes(ReleaseId, f"{text}-v1")


@pytest.mark.parametrize("text", [*UNFIT, *DEVICES])
def test_what_windows_would_change_or_keeps_for_a_device_is_none(text: str) -> None:
    assert (takes(Name, text), is_name(text)) == (False, False)


@pytest.mark.parametrize("text", ["Universitätsklinikum Köln", "Klinik 🏥", "north."])
def test_what_a_name_must_be_is_said_in_words(text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(Name).validate_python(text)
    words = problems_of(refused.value)
    assert "letters from A to Z (ä, é or ß are none)" in words
    assert "pattern" not in words
    assert "Value error" not in words


@pytest.mark.parametrize("text", ["nul.x-v1", "COM1.a-v2", "north.-v1", "north -v1"])
def test_no_release_is_called_so_either(text: str) -> None:
    assert not takes(ReleaseId, text)


def test_no_run_is_called_like_a_device() -> None:
    assert checked_run_name("console") == "console"
    with pytest.raises(UsageError, match=r"run\.name"):
        checked_run_name("con")

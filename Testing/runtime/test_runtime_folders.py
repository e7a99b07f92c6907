"""What in a runtime's folder is FedSegSlicer's, and what is the user's own."""

from test_runtime_installation import install, slicer_python, source, wheels  # noqa: F401


def test_a_runtime_without_marks_goes_on_and_is_removed(slicer_python, source, wheels, tmp_path):  # noqa: F811
    """As installed by a version that did not mark its folders yet."""

    def unmark():
        for mark in tmp_path.glob("*/made-by-fedsegslicer"):
            mark.unlink()

    assert install(slicer_python, source, wheels, tmp_path).end()["event"] == "ready"
    unmark()
    assert install(slicer_python, source, wheels, tmp_path, fresh=True).end()["event"] == "ready"
    assert {p.name for p in tmp_path.glob("*-[0-9]*")} == {"core-2", "packages-2"}
    unmark()
    for file in tmp_path.glob("*/in-use"):
        file.unlink()  # as Windows leaves it after asking whether the folder is in use
    assert install(slicer_python, source, wheels, tmp_path, action="remove").end() == {"event": "removed"}
    assert not tmp_path.exists()

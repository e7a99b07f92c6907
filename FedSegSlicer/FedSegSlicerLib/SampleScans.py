"""The module's sample images: a generated patient, shipped with the module so that they need no network."""

from pathlib import Path

from slicer.i18n import tr as _

CATEGORY = "FedSegSlicer"

CHECKSUMS = {
    "GeneratedAbdomenCT": "1bff78f0495f7f983f58c999b1f450987f72e3601a71d431d86865d402ab8b49",
    "GeneratedAbdomenMR": "5a692934909204b942fbf12c49025f8913d70a3713705cbe718f113605f3df8e",
}
"""SHA-256 of the files, as Testing/tools/sample_data.py wrote them."""


def registerSampleScans(folder: Path) -> None:
    """Let Slicer's Sample Data module offer the images.

    Args:
        folder: where they are.
    """
    import SampleData

    names = {"GeneratedAbdomenCT": _("Generated abdomen, CT"), "GeneratedAbdomenMR": _("Generated abdomen, MR")}
    for file, name in names.items():
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=name,
            thumbnailFileName=str(folder / f"{file}.png"),
            uris=(folder / f"{file}.nrrd").as_uri(),
            fileNames=f"{file}.nrrd",
            checksums=f"SHA256:{CHECKSUMS[file]}",
            nodeNames=file,
        )

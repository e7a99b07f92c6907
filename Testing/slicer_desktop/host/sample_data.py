"""Slicer's SampleData module, as far as other modules use it: sources are registered, fetched, checked, loaded."""

import hashlib
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import slicer


@dataclass
class SampleDataSource:
    """One registered source; lists, as in Slicer."""

    sampleName: str
    uris: list[str]
    fileNames: list[str]
    nodeNames: list[str]
    checksums: list[str]
    thumbnailFileName: str | None = None


class SampleDataLogic:
    """Registers sources under ``slicer.modules.sampleDataSources`` and loads them."""

    @staticmethod
    def registerCustomSampleDataSource(
        category: str, sampleName: str, uris: str, fileNames: str, nodeNames: str, checksums: str,
        thumbnailFileName: str | None = None,
    ) -> None:  # fmt: skip
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        source = SampleDataSource(sampleName, [uris], [fileNames], [nodeNames], [checksums], thumbnailFileName)
        slicer.modules.sampleDataSources.setdefault(category, []).append(source)

    def downloadFromSource(self, source: SampleDataSource) -> list[Any]:
        """Fetch, check and load a source."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / source.fileNames[0]
            urllib.request.urlretrieve(source.uris[0], file)
            algorithm, _, digest = source.checksums[0].partition(":")
            assert algorithm == "SHA256"
            assert hashlib.sha256(file.read_bytes()).hexdigest() == digest
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", source.nodeNames[0])
            storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
            storage.SetFileName(str(file))
            assert storage.ReadData(node)
        return [node]


def module() -> ModuleType:
    """Return the module ``SampleData``."""
    made = ModuleType("SampleData")
    made.SampleDataLogic = SampleDataLogic
    return made

"""FedSegCore: what runs in FedSegSlicer's worker and at the coordinator (no Slicer, no Qt, no VTK)."""

__version__ = "0.1.0"

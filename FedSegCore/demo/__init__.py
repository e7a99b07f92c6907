"""The demonstration: phantoms, a real federation on loopback, releases, segmentation, report."""

"""The demonstration: phantoms, a real federation on loopback, releases, segmentation, report."""

ROUNDS = 7
"""Rounds of the demo unless told otherwise."""

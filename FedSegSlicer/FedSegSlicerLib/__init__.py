"""What the module FedSegSlicer is made of: one file per duty, one per tab."""

VERSION = "0.1.0"
"""Version of this module; the worker's must be the same."""

PROTOCOL = 1
"""Version of the language spoken with the worker."""

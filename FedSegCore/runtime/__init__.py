"""Making the private runtime: standard library only, since it has to run before anything is installed.

``bootstrap.py`` and the Slicer module share it. Slicer's own Python runs ``installer.py`` as a child process.
"""

"""A desktop for tests: PySide6 under PythonQt's rules, slicer-core's real scene, stand-ins for what only Slicer has.

The module under test never knows of it: it imports ``qt``, ``ctk`` and ``slicer`` as in Slicer.
"""

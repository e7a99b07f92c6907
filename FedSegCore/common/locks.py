"""Locks between processes, which a killed process holds no longer."""

from pathlib import Path

from filelock import FileLock, Timeout


def is_locked(lock: Path) -> bool:
    """Return whether a process holds a lock file now; not where the file is absent or may not be opened."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0, mode=0o600):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that can only be read
        return False

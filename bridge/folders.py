"""Where files are kept that can be had again: nodes, fetched models."""

import os
from pathlib import Path


def user_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/neural-bridge`, or the user's cache folder; a root's lies outside of its home, which
    other users cannot enter.

    Raises:
        RuntimeError: the user has no home folder.
    """
    if named := os.environ.get("XDG_CACHE_HOME"):
        return Path(named).resolve() / "neural-bridge"
    if os.geteuid() == 0:
        return Path("/var/cache/neural-bridge")
    return Path.home() / ".cache" / "neural-bridge"

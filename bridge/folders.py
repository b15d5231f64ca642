"""Where the user's files lie: what can be made again (nodes, fetched models), and what later runs need.

On every system as the XDG conventions have it: `XDG_CACHE_HOME` and `XDG_STATE_HOME` choose other places.
"""

import os
from pathlib import Path

from platformdirs.unix import Unix

_FOLDERS = Unix("neural-bridge", appauthor=False)


def user_cache_folder() -> Path:
    """`~/.cache/neural-bridge`; for root `/var/cache/neural-bridge`, since other users cannot enter root's home.

    Raises:
        RuntimeError: the user has no home folder.
    """
    if os.geteuid() == 0 and not os.environ.get("XDG_CACHE_HOME"):
        return Path("/var/cache/neural-bridge")
    return _FOLDERS.user_cache_path.expanduser().resolve()


def default_state_folder(task: str, index: str) -> Path:
    """`~/.local/state/neural-bridge/TASK/INDEX`: checkpoints and dead letters of one task on one index.

    Raises:
        RuntimeError: the user has no home folder.
    """
    return _FOLDERS.user_state_path.expanduser() / task / index

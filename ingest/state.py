"""Where runs keep what later runs need, unless the operator says otherwise."""

import os
from pathlib import Path


def default_state_folder(task: str, index: str) -> Path:
    """One folder per task and index, where the desktop conventions put state."""
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "neural-bridge" / task / index

"""A mirror of the model hub in a folder, as the hub's own client leaves its cache."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def mirror_model(mirror: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Puts the repository `name` (ORG/NAME) with `files` (path → content) into `mirror`; gives its snapshot."""
    repository = mirror / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    (repository / "blobs").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for path, content in files.items():
        # The hub names large files by SHA-256, others by git's digest.
        large = path.endswith((".onnx", ".safetensors"))
        head = b"blob %d\0" % len(content)
        digest = hashlib.sha256(content) if large else hashlib.sha1(head + content, usedforsecurity=False)
        blob = repository / "blobs" / digest.hexdigest()
        blob.write_bytes(content)
        link = snapshot / path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return snapshot

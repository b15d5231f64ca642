"""A model folder and its manifest: from a name to files that are safe to open.

Only files that the manifest lists are ever opened, each checked by size, kind and SHA-256 first; weights
saved by pickle (`.pt`, `.pkl`, `pytorch_model.bin`) and code that lies in the folder stay unread.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import msgspec

from bridge.errors import ModelError
from bridge.folders import user_cache_folder
from bridge.models import onnx_file
from bridge.text import decode

Kind = Literal["encoder", "static_encoder", "cross_encoder", "query_generator", "sparse_encoder", "image_encoder"]

Role = Literal["query", "passage"]
"""What a text is to an encoder."""

MANIFEST = "manifest.json"
TOKENIZER = "tokenizer.json"
IDF = "idf.npy"
"""Of a sparse encoder: how much each word piece of a query weighs, float32 (n_pieces,)."""

BUILTIN = Path(__file__).parent / "builtin"

MAX_TOKENIZER_BYTES = 64_000_000
"""The largest vocabularies in use (250,000 pieces) are 17 MB as JSON."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

DIGEST_LENGTH = 12
"""Hex digits of a SHA-256 that name a model in stamps, caches and the index's profile."""


Resampling = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
"""How pixels are scaled, by Pillow's names."""


class PictureInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an image encoder takes a picture: RGB, values of 0…1 less `mean`, divided by `deviation`, one of each per
    channel.

    - `file`: the tower that reads pictures.
    - `side`: width and height in pixels.
    - `share`: of the shorter side; the square of this side in the picture's middle is read. None: the whole picture,
      stretched to a square.
    """

    side: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    mean: Annotated[list[float], msgspec.Meta(min_length=3, max_length=3)]
    deviation: Annotated[list[Annotated[float, msgspec.Meta(gt=0)]], msgspec.Meta(min_length=3, max_length=3)]
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = 1.0
    resample: Resampling = "bicubic"
    file: str = "image.onnx"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `manifest.json` says of a model.

    `file` is the file whose digest names the model; `files` maps every file that may be opened to its
    SHA-256. `max_tokens` counts special tokens. `dimension`, `pooling`, `normalise` and the prefixes mean
    something for encoders only; `start_id` and `end_id`, the ids around a query, for generators only; `prompt`,
    the three texts before, between and after query and passage, for cross-encoders that read a pair as one text;
    `keep_tokens`, the share of a passage's tokens that a cross-encoder's upper layers read.
    `pictures`: of an image encoder, whose `file` is the tower that reads texts.
    `languages`: those that it reads, by ISO 639-1; empty if nobody says.
    `figures` holds what was measured of this very file, for people.
    """

    kind: Kind
    name: str
    licence: str
    max_tokens: Annotated[int, msgspec.Meta(ge=3)]
    files: dict[str, str]
    file: str = "model.onnx"
    dimension: Annotated[int, msgspec.Meta(ge=1)] | None = None
    pooling: Literal["mean", "cls", "max"] = "mean"
    normalise: bool = True
    query_prefix: str = ""
    passage_prefix: str = ""
    start_id: int | None = None
    end_id: int | None = None
    prompt: list[str] = []
    keep_tokens: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    pictures: PictureInput | None = None
    languages: list[str] = []
    sources: list[str] = []
    figures: dict[str, float] = {}

    def prefix(self, role: Role) -> str:
        """What the model wants before a text of this role."""
        return self.query_prefix if role == "query" else self.passage_prefix


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder whose manifest was read; its files are not yet checked (see `verify`)."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """First hex digits of the SHA-256 of the model's main file; of an image encoder, of its towers' hashes."""
        main = self.manifest.files[self.manifest.file]
        if self.manifest.pictures is None:
            return main[:DIGEST_LENGTH]
        both = main + self.manifest.files[self.manifest.pictures.file]
        return hashlib.sha256(both.encode()).hexdigest()[:DIGEST_LENGTH]

    @property
    def identity(self) -> str:
        """`name@digest`: what stamps and caches are keyed by."""
        return f"{self.manifest.name}@{self.digest}"

    @property
    def model_file(self) -> Path:
        """The model's main file."""
        return self.path / self.manifest.file

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer's definition."""
        return self.path / TOKENIZER


def builtin_names() -> list[str]:
    """Names of the models that come with the program, sorted."""
    return sorted(path.parent.name for path in BUILTIN.glob(f"*/{MANIFEST}"))


def fetched_folder(name: str) -> Path:
    """Where `neural-bridge models fetch` puts the hub's model `name` (ORG/NAME)."""
    return user_cache_folder() / "models" / name.replace("/", "--")


def resolve(name: str) -> ModelFolder:
    """Finds a model by path, by built-in name, or by the name of a fetched one; reads its manifest.

    Nothing is fetched here: a server that downloads for minutes when it starts is a surprise.

    Raises:
        ModelError: there is no such folder, or its manifest cannot be read.
    """
    folder = Path(name).expanduser()
    if (folder / MANIFEST).is_file():
        return read_folder(folder)
    if name in builtin_names():
        return read_folder(BUILTIN / name)
    if folder.is_dir():
        raise ModelError(
            f"model folder {folder} has no {MANIFEST}: make one with `neural-bridge models export {folder} OUT`"
        )
    if _HUB_NAME.fullmatch(name):
        if (fetched_folder(name) / MANIFEST).is_file():
            return read_folder(fetched_folder(name))
        raise ModelError(
            f"model {name!r} is neither a folder with a {MANIFEST} nor fetched: "
            f"give a path, or run `neural-bridge models fetch {name}`"
        )
    raise ModelError(
        f"model {name!r} is neither a folder with a {MANIFEST} nor built in: "
        f"give a path, or one of {', '.join(builtin_names()) or '(none is installed)'}"
    )


def resolve_identity(identity: str, configured: str, *, setting: str) -> ModelFolder:
    """Finds the model that enriched an index: its profile knows it as NAME@DIGEST, and where it lies in a folder
    of its own, the `setting` whose value is `configured` leads to it.

    Raises:
        ModelError: neither the name nor the setting leads to this very model.
    """
    for name in (identity.rpartition("@")[0], configured):
        try:
            folder = resolve(name)
        except ModelError:
            continue
        if folder.identity == identity:
            return folder
    raise ModelError(
        f"the index was enriched by {identity}, which is neither built in nor the model of {setting} "
        f"({configured}): set that to its folder"
    )


def read_folder(path: Path) -> ModelFolder:
    """Reads a folder's manifest.

    Raises:
        ModelError: the manifest is no valid one, or names files outside the folder.
    """
    file = path / MANIFEST
    try:
        manifest = decode(file.read_bytes(), Manifest)
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"model manifest {file} cannot be read ({error}): export the model anew") from error
    for name in (manifest.file, TOKENIZER, *([manifest.pictures.file] if manifest.pictures else [])):
        if name not in manifest.files:
            raise ModelError(f"model manifest {file}: `files` has no digest of {name}: export the model anew")
    for name in manifest.files:
        if PurePosixPath(name).name != name or name in {"", ".", ".."}:
            raise ModelError(f"model manifest {file}: file {name!r} must be a plain name inside the folder")
    if len(manifest.prompt) not in (0, 3):
        raise ModelError(f"model manifest {file}: `prompt` has {len(manifest.prompt)} texts, three are needed or none")
    if manifest.kind in ("encoder", "static_encoder", "image_encoder") and not manifest.dimension:
        raise ModelError(f"model manifest {file}: an encoder needs `dimension`")
    if (manifest.kind == "image_encoder") != (manifest.pictures is not None):
        raise ModelError(f"model manifest {file}: an image encoder, and no other kind, has `pictures`")
    return ModelFolder(path=path, manifest=manifest)


def verify(folder: ModelFolder, *, kind: Kind) -> None:
    """Checks every file of the folder before anything opens it.

    Raises:
        ModelError: another kind of model, a file that is missing, a link out of the folder, empty, not
            what its name says, or not the one whose SHA-256 the manifest holds.
    """
    if folder.manifest.kind != kind:
        raise ModelError(
            f"model {folder.path} is of kind {folder.manifest.kind}, a {kind} is needed: name another model"
        )
    for name, expected in folder.manifest.files.items():
        path = folder.path / name
        _check_plain_file(path, folder.path)
        if name == TOKENIZER and (size := path.stat().st_size) > MAX_TOKENIZER_BYTES:
            raise ModelError(
                f"tokenizer {path} has {size:,} bytes, at most {MAX_TOKENIZER_BYTES:,} are read: "
                f"this is no tokenizer.json of a text model"
            )
        if path.suffix == ".onnx":
            onnx_file.check(path)
        found = sha256(path)
        if found != expected:
            raise ModelError(
                f"model file {path} has SHA-256 {found[:DIGEST_LENGTH]}…, its manifest says "
                f"{expected[:DIGEST_LENGTH]}…: fetch or export the model anew"
            )


def write_manifest(folder: Path, manifest: Manifest) -> ModelFolder:
    """Writes `manifest` with the digests of `manifest.files`' names taken from the folder as it is."""
    files = {name: sha256(folder / name) for name in sorted(manifest.files)}
    complete = msgspec.structs.replace(manifest, files=files)
    encoded = msgspec.json.format(msgspec.json.encode(complete), indent=2)
    (folder / MANIFEST).write_bytes(encoded + b"\n")
    return ModelFolder(path=folder, manifest=complete)


def names_only(names: Sequence[str]) -> dict[str, str]:
    """A manifest's `files` before the digests are known: see `write_manifest`."""
    return dict.fromkeys(names, "")


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_plain_file(path: Path, folder: Path) -> None:
    if not path.exists():
        raise ModelError(f"model file {path} is missing: fetch or export the model anew")
    if path.resolve().parent != folder.resolve():
        raise ModelError(f"model file {path} is a link out of its folder: put the file itself there")
    if not path.is_file():
        raise ModelError(f"model file {path} is no regular file: fetch or export the model anew")
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if not head:
        raise ModelError(f"model file {path} is empty: fetch or export the model anew")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"model file {path} is a git-lfs pointer: run `git lfs pull` where it came from")
    if head[:14].lower().startswith((b"<!doctype", b"<html")):
        raise ModelError(f"model file {path} is an HTML page (a failed download): fetch it anew")

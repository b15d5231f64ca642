"""Models of a hub: what is taken of a repository, and what its files say of the model.

The files come through huggingface_hub: from the network, or from a mirror, a folder in the layout of its own
cache (`models--ORG--NAME/` with `blobs`, `refs` and `snapshots`), as `hf download` leaves on a machine that has a
network. Each file is compared with the digest that the hub names it by. Weights saved by pickle and code are
never asked for.
"""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from bridge.errors import ModelError
from bridge.models.artifact import TOKENIZER, Kind, Manifest, ModelFolder, names_only, write_manifest
from bridge.text import decode

READY_GRAPHS = ("onnx/model.onnx", "model.onnx")
"""Where repositories keep an ONNX graph in float32, first found."""

SAFE_WEIGHTS = "model.safetensors"
GENERATION_CONFIGURATION = "generation_config.json"
PREPROCESSOR_CONFIGURATION = "preprocessor_config.json"
"""How a model takes pictures."""

_CONFIGURATION = "config.json"
_CARD = "README.md"
_POOLING_FILE = "1_Pooling/config.json"
_LENGTH_FILE = "sentence_bert_config.json"
_PROMPTS_FILE = "config_sentence_transformers.json"
_MODULES_FILE = "modules.json"
_SHA256_HEX, _SHA1_HEX = 64, 40
_MOST_TOKENS = 512


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository's model on this machine.

    `folder` is the snapshot: its files under their own names. `graph`: the ready ONNX file, or None if the
    weights (`SAFE_WEIGHTS`) must be exported. `max_tokens` with special tokens.
    """

    name: str
    folder: Path
    kind: Kind
    graph: Path | None
    licence: str
    max_tokens: int
    dimension: int
    pooling: Literal["mean", "cls", "max"]
    normalise: bool
    query_prefix: str
    passage_prefix: str
    languages: list[str]

    @property
    def source(self) -> str:
        """Where it comes from, with the commit: for the manifest."""
        return f"hub: {self.name} at {self.folder.name}"


def download(name: str, *, mirror: Path | None = None, kind: Kind | None = None, graph: str | None = None) -> HubModel:
    """Fetches what is needed of the repository `name` (ORG/NAME), from `mirror` alone if there is one.

    `kind`: what the model is; read from its configuration by default. `graph`: the ONNX file to take, in place
    of `READY_GRAPHS`.

    Raises:
        ModelError: there is no such repository, it has no safe weights, or a file is not what the hub has.
    """
    repository = _Repository(name, mirror)
    configuration = repository.json(_CONFIGURATION)
    if configuration is None:
        raise ModelError(f"model {name!r} has no {_CONFIGURATION}: it is no model of transformers' layout")
    repository.required(TOKENIZER, "only the `tokenizers` library's file is read; another model may have it")
    modules = repository.json(_MODULES_FILE, list[dict[str, Any]]) or []
    kind = kind or _kind(name, configuration, modules)
    found = None
    # A generator's graphs come in several files, whose names differ by exporter, a sparse encoder's gives all logits of
    # all tokens, and an image encoder's wants texts and pictures at once: these are exported here.
    if kind not in ("query_generator", "sparse_encoder", "image_encoder") or graph is not None:
        graphs = (graph,) if graph is not None else READY_GRAPHS
        found = next((file for path in graphs if (file := repository.file(path)) is not None), None)
        if graph is not None and found is None:
            raise ModelError(f"model {name!r} has no file {graph}: leave the option out to take what it has")
    if found is None:
        repository.required(SAFE_WEIGHTS, "weights saved by pickle are never opened; ask its owner for safetensors")
        repository.file(GENERATION_CONFIGURATION)
        repository.file(PREPROCESSOR_CONFIGURATION)
    card = repository.card()
    languages = card.get("language") or []
    prompts = (repository.json(_PROMPTS_FILE) or {}).get("prompts") or {}
    length = (repository.json(_LENGTH_FILE) or {}).get("max_seq_length") or _MOST_TOKENS
    return HubModel(
        name=name,
        folder=repository.snapshot,
        kind=kind,
        graph=found,
        licence=str(card.get("license") or "not stated in its card"),
        max_tokens=min(length, configuration.get("max_position_embeddings") or _MOST_TOKENS, _MOST_TOKENS),
        dimension=configuration.get("hidden_size") or configuration.get("d_model") or 0,
        pooling=_pooling(repository.json(_POOLING_FILE) or {}),
        normalise=not modules or any("Normalize" in str(module.get("type")) for module in modules),
        query_prefix=prompts.get("query", ""),
        passage_prefix=prompts.get("document", prompts.get("passage", "")),
        languages=[str(each) for each in (languages if isinstance(languages, list) else [languages])],
    )


def copy_ready_graph(model: HubModel, out: Path, *, name: str) -> ModelFolder:
    """Makes the model folder `out` of a repository's own ONNX graph."""
    if model.graph is None:
        raise ValueError("the repository has no graph")
    out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model.graph, out / "model.onnx")
    shutil.copyfile(model.folder / TOKENIZER, out / TOKENIZER)
    manifest = Manifest(
        kind=model.kind,
        name=name,
        licence=model.licence,
        max_tokens=model.max_tokens,
        files=names_only(["model.onnx", TOKENIZER]),
        dimension=model.dimension if model.kind == "encoder" else None,
        pooling=model.pooling,
        normalise=model.normalise,
        query_prefix=model.query_prefix,
        passage_prefix=model.passage_prefix,
        languages=model.languages,
        sources=[model.source],
    )
    return write_manifest(out, manifest)


def _kind(name: str, configuration: dict[str, Any], modules: list[dict[str, Any]]) -> Kind:
    if any("sparse_encoder" in str(module.get("type")) for module in modules):
        return "sparse_encoder"  # the package of sentence-transformers that its parts come from
    architecture = next(iter(configuration.get("architectures") or ["?"]))
    if architecture == "CLIPModel":
        return "image_encoder"
    if architecture.endswith("ForSequenceClassification"):
        return "cross_encoder"
    if architecture.endswith("ForConditionalGeneration"):
        # Only its name distinguishes a reranker of this shape from a generator.
        return "cross_encoder" if "monot5" in name.lower() else "query_generator"
    return "encoder"


def _pooling(configuration: dict[str, Any]) -> Literal["mean", "cls", "max"]:
    """What sentence-transformers' pooling layer does."""
    if configuration.get("pooling_mode_cls_token"):
        return "cls"
    return "max" if configuration.get("pooling_mode_max_tokens") else "mean"


class _Repository:
    """The files of one repository, each fetched at its first use, and checked."""

    def __init__(self, name: str, mirror: Path | None) -> None:
        self._name = name
        self._mirror = mirror
        self.snapshot = Path()

    def file(self, path: str) -> Path | None:
        """The checked file, or None if the repository has none of that name.

        Raises:
            ModelError: the repository cannot be had, or the file's digest is another.
        """
        try:
            found = Path(
                hf_hub_download(self._name, path, cache_dir=self._mirror, local_files_only=self._mirror is not None)
            )
        except LocalEntryNotFoundError as error:
            if self._mirror is None:
                raise ModelError(
                    f"model {self._name!r} cannot be fetched, the hub does not answer ({error}): "
                    f"name a mirror folder with --mirror, or a model folder by its path"
                ) from error
            return None
        except EntryNotFoundError:
            return None
        except (HFValidationError, HfHubHTTPError, OSError) as error:
            raise ModelError(
                f"model {self._name!r} cannot be fetched ({error}): give ORG/NAME as the hub spells it"
            ) from error
        _check_digest(found)
        self.snapshot = found.parents[path.count("/")]
        return found

    def required(self, path: str, remedy: str) -> Path:
        """As `file`, for one that must be there.

        Raises:
            ModelError: it is not there.
        """
        found = self.file(path)
        if found is None:
            raise ModelError(f"model {self._name!r} has no {path}: {remedy}")
        return found

    def json(self, path: str, kind: Any = dict[str, Any]) -> Any:
        """A JSON file's content, which is of this kind, or None if there is no such file.

        Raises:
            ModelError: as `file`, or the content is of another kind.
        """
        found = self.file(path)
        if found is None:
            return None
        try:
            return decode(found.read_bytes(), kind)
        except msgspec.DecodeError as error:
            raise ModelError(
                f"model {self._name!r}: {path} cannot be read ({error}): report it to its owner"
            ) from error

    def card(self) -> dict[str, Any]:
        """The model card's front matter; empty if there is none that can be read."""
        card = self.file(_CARD)
        parts = card.read_text("utf-8", "replace").split("---\n", 2) if card is not None else []
        try:
            matter = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
        except yaml.YAMLError:
            matter = None
        return matter if isinstance(matter, dict) else {}


def _check_digest(file: Path) -> None:
    """Compares a file with the digest that the cache names it by: SHA-256 for large files, else git's.

    Raises:
        ModelError: they differ, or the name is no digest.
    """
    stored = file.resolve()
    named = stored.name
    if len(named) == _SHA256_HEX:
        digest = hashlib.sha256()
    elif len(named) == _SHA1_HEX:
        digest = hashlib.sha1(b"blob %d\0" % stored.stat().st_size, usedforsecurity=False)
    else:
        raise ModelError(
            f"model file {file} is no link to a blob named by its digest: copy a mirror with its links (cp -a)"
        )
    with stored.open("rb") as content:
        hashlib.file_digest(content, lambda: digest)
    if digest.hexdigest() != named:
        raise ModelError(f"model file {file} has not the digest {named[:12]}… of the hub: fetch it anew")

"""The models that a sidecar serves, and which of them a request means."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self, TypeVar

import structlog

from bridge.models.artifact import ModelFolder, builtin_names, resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.query_generator import QueryGenerator
from bridge.models.session import check_providers
from bridge.models.sparse_encoder import SparseEncoder
from bridge.settings import SidecarSettings
from rerank_server.errors import NotServed

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Models:
    """The loaded models.

    `cross_encoder` reranks unless a request names one of `more`; `cascade` is the small one that reads all passages
    before it. `encoder` embeds unless a request names one of `more_encoders`. The first of `sparse_encoders` gives
    terms unless a request names another.
    """

    cross_encoder: CrossEncoder
    encoder: Encoder
    cascade: CrossEncoder | None = None
    more: tuple[CrossEncoder, ...] = ()
    generator: QueryGenerator | None = None
    more_encoders: tuple[Encoder, ...] = ()
    sparse_encoders: tuple[SparseEncoder, ...] = ()

    @classmethod
    def load(cls, settings: SidecarSettings) -> Self:
        """Opens the models that the settings name.

        Raises:
            ModelError: a folder is missing, damaged, or of the wrong kind.
            SettingsError: an execution provider is not here, or does not start.
        """
        check_providers(settings.providers, setting="sidecar.providers")
        # One thread each: the queue's threads compute, not their own.
        cross_encoder = partial(CrossEncoder.load, threads=1, providers=settings.providers)
        encoder = partial(Encoder.load, threads=1, providers=settings.providers)
        small = cascade_folder(settings)
        return cls(
            cross_encoder=cross_encoder(resolve(settings.rerank_model)),
            encoder=encoder(resolve(settings.encoder)),
            cascade=cross_encoder(small) if small else None,
            more=tuple(cross_encoder(resolve(name)) for name in settings.more_rerank_models),
            generator=QueryGenerator.load(resolve(settings.generator), threads=settings.threads)
            if settings.generator
            else None,
            more_encoders=tuple(encoder(resolve(name)) for name in settings.more_encoders),
            sparse_encoders=tuple(
                SparseEncoder.load(resolve(name), threads=1, providers=settings.providers)
                for name in settings.sparse_encoders
            ),
        )

    @property
    def cross_encoders(self) -> Iterator[CrossEncoder]:
        """All that a request can name, the default first."""
        yield self.cross_encoder
        yield from self.more
        if self.cascade is not None:
            yield self.cascade

    @property
    def encoders(self) -> tuple[Encoder, ...]:
        """All that a request can name, the default first."""
        return (self.encoder, *self.more_encoders)

    @property
    def identities(self) -> list[str]:
        """`name@digest` of every model."""
        generators = [self.generator] if self.generator else []
        kinds = (self.cross_encoders, self.encoders, self.sparse_encoders, generators)
        return list(dict.fromkeys(model.identity for models in kinds for model in models))

    def reranker(self, name: str | None) -> CrossEncoder:
        """The cross-encoder called `name` (`name` or `name@digest`), or the default one.

        An unknown name means the default too: applications written for a hosted service send the names of its models,
        and the answer names the model that was used.
        """
        for model in self.cross_encoders:
            if name in (model.identity, model.identity.partition("@")[0]):
                return model
        return self.cross_encoder

    def encoder_called(self, name: str | None) -> Encoder:
        """The encoder called `name` (`name` or `name@digest`), or the default one, as in `reranker`.

        Raises:
            NotServed: an unknown name has a digest: its caller compares the embedding with others of that encoder.
        """
        return _called(name, self.encoders, kind="encoder")

    def sparse_encoder_called(self, name: str | None) -> SparseEncoder:
        """The sparse encoder called `name`, or the default one, as in `encoder_called`.

        Raises:
            NotServed: there is none, or as in `encoder_called`.
        """
        if not self.sparse_encoders:
            raise NotServed("no sparse encoder runs here: name one in sidecar.sparse_encoders", field="model")
        return _called(name, self.sparse_encoders, kind="sparse encoder")


AnyEncoder = TypeVar("AnyEncoder", Encoder, SparseEncoder)


def _called(name: str | None, encoders: Sequence[AnyEncoder], *, kind: str) -> AnyEncoder:
    for encoder in encoders:
        if name in (encoder.identity, encoder.identity.partition("@")[0]):
            return encoder
    if name is not None and "@" in name:
        ours = ", ".join(encoder.identity for encoder in encoders)
        raise NotServed(f"there is no {kind} {name} here, but {ours}", field="model")
    return encoders[0]


def cascade_folder(settings: SidecarSettings) -> ModelFolder | None:
    """The folder of the cascade's small model; None without a name, or if the default model is not installed: only
    cascades need it.

    Raises:
        ModelError: another one is named, and there is no such model.
    """
    name = settings.cascade_model
    if not name:
        return None
    if name == SidecarSettings.model_fields["cascade_model"].default and name not in builtin_names():
        log.warning("no cascade", model=name, reason="the model is not installed")
        return None
    return resolve(name)

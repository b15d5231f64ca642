"""What `_meta.neural_bridge` says of an index: all that a proxy must know to upgrade its searches.

The profile lives in the index's mapping, so proxies hold no state and any number of them agree.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bridge.errors import IndexUnsuitable

META_KEY = "neural_bridge"
"""The key under the mapping's `_meta`."""

BESIDE_KEY = "neural_bridge_beside"
"""The key of the profile of the generation that stands beside the serving one while models change. Only the
operator's commands read it: a search knows one generation."""

DEFAULT_OBJECT = "_neural"
"""What our object in a document is called where the operator gave it no other name. Searches that name no fields look
into every field of an index but those whose names begin with an underscore."""

PROFILE_VERSION = 1
"""Rises when a reader of an older version would misunderstand the profile."""

MAX_WINDOW = 10_000
"""The engines' own default for `index.max_result_window`: no leg gives more documents."""

Count = Annotated[int, Meta(ge=1, le=MAX_WINDOW)]
"""A number of documents or passages. Ranges hold where a profile is read (`profile_of`), not where one is made."""

Weight = Annotated[float, Meta(ge=0, le=1_000_000)]

Stage = Literal["lexical", "expansion", "vector", "hybrid", "cascade", "rerank"]
"""Where a search stops. lexical: the application's own query; expansion: it and the predicted queries;
vector: k-NN alone; hybrid: expansion and vector fused; cascade: hybrid, then a small cross-encoder over many
candidates and the large one over the best of them; rerank: hybrid, then the large one alone."""

VectorType = Literal["knn_vector", "dense_vector", "none"]
"""How an index holds embeddings: OpenSearch's field type, Elasticsearch's, or not at all, where the cluster
cannot search vectors."""


VectorEncoding = Literal["float", "byte"]
"""How an index holds a component of an embedding: as float32, or as a signed byte. A vector's bytes are its components
divided by the largest of them, times 127: cosine, by which they are compared, does not depend on a vector's length."""


class ModelReference(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """A model by name and by digest (first 12 hex digits of the SHA-256 of its ONNX file)."""

    name: str
    digest: str

    @property
    def identity(self) -> str:
        """`name@digest`: what stamps and caches are keyed by."""
        return f"{self.name}@{self.digest}"


class PassageSettings(msgspec.Struct, frozen=True):
    """How a document is split. `layout` single: one embedding per document, in `OBJECT.embedding`;
    nested: one per passage, in `OBJECT.passages`. Sizes in tokens of the encoder."""

    layout: Literal["single", "nested"] = "single"
    max_tokens: Annotated[int, Meta(ge=1)] = 256
    overlap_tokens: Annotated[int, Meta(ge=0)] = 32


class FusionSettings(msgspec.Struct, frozen=True):
    """How the legs' rankings become one. `weights` by leg name; `k` is RRF's rank constant.

    docs/decisions/0004-fusion.md says why standard scores are the default.
    """

    method: Literal["rrf", "minmax", "zscore"] = "zscore"
    k: Annotated[int, Meta(ge=0, le=1_000_000)] = 60
    weights: dict[str, Weight] = msgspec.field(
        default_factory=lambda: {"lexical": 0.0, "expansion": 1.0, "vector": 1.0}
    )


class CascadeSettings(msgspec.Struct, frozen=True):
    """The cascade of two cross-encoders: the small one reads the first `candidates` documents, the large one
    the best `depth` of them (Matveeva et al. 2006, "High accuracy retrieval with multiple nested ranker")."""

    candidates: Count = 100
    depth: Count = 20


PassageScores = Literal["max", "mean", "sum"]
"""How the scores of a document's passages become one."""


class RerankSettings(msgspec.Struct, frozen=True):
    """How the fused ranking is reranked: the first `depth` documents (stage rerank), or as `cascade` says
    (stage cascade); `blend` is the weight of the fused score, normalised to 0…1 over the candidates, beside
    the cross-encoder's (1 - blend). Stage rerank reads the `passages` of a document that are nearest to the
    query, and makes one score of theirs; stage cascade reads the nearest one."""

    model: str = "rerank-base"
    depth: Count = 30
    blend: Annotated[float, Meta(ge=0, le=1)] = 0.6
    passages: Count = 1
    passage_scores: PassageScores = "max"
    cascade: CascadeSettings = CascadeSettings()


class SearchRules(msgspec.Struct, frozen=True):
    """Which searches are left alone although they are understood.

    `leave_quoted`: words in quotation marks. `leave_identifiers`: single words with three digits or more, such
    as part numbers. Both ask for these very words and for nothing like them. `leave_sorted_ties`: searches
    that are sorted by score, and among equal scores by other fields; an application that turns their pages by
    `from`, and not by `search_after`, can have them upgraded. `scripts`: those that the models read, as
    `bridge.scripts` calls them; searches in others are left alone, none where the list is empty.

    `confident_lead`: where the text leg's first score is so many times its second, that leg alone ranks; None
    lets all legs rank always.
    """

    leave_quoted: bool = True
    leave_identifiers: bool = True
    leave_sorted_ties: bool = True
    scripts: list[str] = []
    confident_lead: Annotated[float, Meta(gt=0)] | None = None


class Measurement(msgspec.Struct, frozen=True):
    """What a verdict rests on: which judgements of how many queries, of which kind of measure, and when
    (ISO 8601, UTC)."""

    judgements: str
    queries: int
    measure: str
    measured_at: str


class StageVerdict(msgspec.Struct, frozen=True):
    """What the gate found of one stage.

    `mean`: of the measure; `p50_ms`, `p95_ms`: of a search, at the client. `difference` to the mean of the
    stage `against`, over the same queries, with its paired 95 % interval `low`…`high`; `against` is None for
    the stage that all begins with. `forced`: the operator's reason where the verdict is his.
    """

    stage: Stage
    enabled: bool
    mean: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    against: Stage | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    forced: str | None = None


class GateRecord(msgspec.Struct, frozen=True):
    """Why `stages` are what they are. A stage is enabled where `low` is no further below zero than `tolerance`.
    `measurement` is None where stages were forced without one."""

    verdicts: list[StageVerdict]
    tolerance: float
    measurement: Measurement | None = None


class TunedPoint(msgspec.Struct, frozen=True):
    """A setting on the front of quality against time: `mean` of the measure over queries that did not choose
    it, `p95_ms` as estimated, `setting` in words."""

    p95_ms: float
    mean: float
    setting: str


class TuningRecord(msgspec.Struct, frozen=True):
    """Where fusion and rerank settings come from: held-out means of the settings before (`default_mean`) and of
    those chosen (`tuned_mean`), their paired difference with its 95 % interval, and the front."""

    measurement: Measurement
    folds: int
    budget_p95_ms: float | None
    default_mean: float
    tuned_mean: float
    low: float
    high: float
    front: list[TunedPoint]


SEPARATE_BOOST = 0.25
"""Weight of predicted queries that are scored by themselves: a short field, where a single word counts for much."""

TOGETHER_BOOST = 1.0
"""Weight of text and predicted queries scored as one field; docs/explanation/benchmarks.md has the figures for both."""


class FilterThreshold(msgspec.Struct, frozen=True):
    """The score that predicted queries must reach: of those that `generator` predicted for a sample of the
    documents, `percentile` % scored lower by `model`. Only ingest reads it."""

    generator: str
    model: str
    percentile: float
    score: float


class IndexProfile(msgspec.Struct, frozen=True):
    """The whole of `_meta.neural_bridge`.

    `text_fields`: names of the application's text fields (dots for objects) that are expanded, embedded and reranked.
    `object_field`: our one object in each document. `window`: how many documents each leg gives and the
    fused ranking holds; pages inside it are stable. `expanded_fields`: text fields that are scored together
    with the predicted queries, as one field (BM25F: Robertson et al. 2004); empty where these are scored by
    themselves. `expansion_boost`: weight of that score beside the application's own. `rules`: which searches
    are left alone. `stages`: the stages that may serve this index (the gate's verdict); a search stops at the
    last one. `gate` and `tuning` keep the evidence; no search reads them. `generation`: which set of our
    fields, counted from 1; each is made by its own models.
    `vector_type`: where it is none, the encoder only says how long passages are. `vector_encoding`: float in a profile
    that does not name it, since older indices hold float32. `filter_threshold`: which
    predicted queries were kept, where a share of all decided that.
    """

    text_fields: Annotated[list[str], Meta(min_length=1)]
    encoder: ModelReference
    dimension: Annotated[int, Meta(ge=1, le=65_536)]
    generator: ModelReference | None = None
    object_field: str = DEFAULT_OBJECT
    passages: PassageSettings = PassageSettings()
    fusion: FusionSettings = msgspec.field(default_factory=FusionSettings)
    rerank: RerankSettings = RerankSettings()
    window: Count = 100
    expanded_fields: list[str] = []
    expansion_boost: Weight = SEPARATE_BOOST
    rules: SearchRules = SearchRules()
    stages: Annotated[list[Stage], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: ["lexical", "expansion", "vector", "hybrid", "rerank"]
    )
    gate: GateRecord | None = None
    tuning: TuningRecord | None = None
    generation: Annotated[int, Meta(ge=1)] = 1
    vector_type: VectorType = "knn_vector"
    vector_encoding: VectorEncoding = "float"
    filter_threshold: FilterThreshold | None = None
    version: int = PROFILE_VERSION

    @property
    def generation_field(self) -> str:
        """Full name of the object that holds the fields of this generation: the first one's stand in our
        object itself, a later one's in an object of its own within it."""
        return self.object_field if self.generation == 1 else f"{self.object_field}.generation_{self.generation}"

    @property
    def predicted_queries_field(self) -> str:
        """Full name of the text field that holds the predicted queries."""
        return f"{self.generation_field}.predicted_queries"

    @property
    def embedding_field(self) -> str:
        """Full name of the knn_vector field."""
        if self.passages.layout == "nested":
            return f"{self.passages_field}.embedding"
        return f"{self.generation_field}.embedding"

    @property
    def passages_field(self) -> str:
        """Full name of the nested object that holds one embedding per passage."""
        return f"{self.generation_field}.passages"

    @property
    def stamp_field(self) -> str:
        """Full name of the keyword field that holds the stamp."""
        return f"{self.generation_field}.stamp"

    def to_meta(self) -> dict[str, Any]:
        """The value to store under `META_KEY`."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built


def profile_of(meta: object, *, index: str) -> IndexProfile | None:
    """Reads the profile from a mapping's `_meta` object; None where the bridge has not been here.

    Raises:
        IndexUnsuitable: the block is there but cannot be read, or a newer version wrote it.
    """
    if not isinstance(meta, dict) or META_KEY not in meta:
        return None
    block = meta[META_KEY]
    if isinstance(block, dict) and isinstance(version := block.get("version"), int) and version > PROFILE_VERSION:
        raise IndexUnsuitable(
            f"index {index}: _meta.{META_KEY} has version {version}, this program reads up to "
            f"{PROFILE_VERSION}: update opensearch-neural-bridge"
        )
    try:
        return msgspec.convert(_with_field_names(block), IndexProfile)
    except msgspec.ValidationError as error:
        raise IndexUnsuitable(
            f"index {index}: _meta.{META_KEY} cannot be read ({error}): correct it, or run "
            f"`neural-bridge index create` anew"
        ) from error


def _with_field_names(block: object) -> object:
    """`block` with plain names as text fields: older profiles hold objects, `{"name": "title"}`."""
    if not isinstance(block, dict) or not isinstance(fields := block.get("text_fields"), list):
        return block
    names = [field.get("name") if isinstance(field, dict) else field for field in fields]
    return {**block, "text_fields": names}

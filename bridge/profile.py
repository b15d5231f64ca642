"""The profile of an enriched index (`_meta.neural_bridge`): all that a proxy must know to upgrade its searches.

The profile lives in the index's mapping, so proxies hold no state and any number of them agree.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bridge.errors import IndexUnsuitable

META_KEY = "neural_bridge"
"""The key under the mapping's `_meta`."""

BESIDE_KEY = "neural_bridge_beside"
"""The key of the second generation's profile while an index changes its models. Only the operator's commands read
it: a search uses one generation."""

DEFAULT_OBJECT = "_neural"
"""Default name of our object in a document. Searches that name no fields look into every field of an index except
those whose names begin with an underscore."""

ENTRY_ID = "id"
"""Among our fields in a companion: the document's id."""

PROFILE_VERSION = 1
"""Rises when a reader of an older version would misunderstand the profile."""

MAX_WINDOW = 10_000
"""The engines' own default for `index.max_result_window`: no leg gives more documents."""

Count = Annotated[int, Meta(ge=1, le=MAX_WINDOW)]
"""A number of documents or passages. Ranges are checked when a profile is read (`profile_of`), not when it is made."""

Weight = Annotated[float, Meta(ge=0, le=1_000_000)]

Stage = Literal["lexical", "expansion", "vector", "sparse", "image", "hybrid", "smoothing", "cascade", "rerank"]
"""The last stage of a search. lexical: the application's own query; expansion: it and the predicted queries; vector:
k-NN alone; sparse: weighted terms alone; image: pictures alone; hybrid: all legs that have a weight, fused; smoothing:
hybrid, then similar documents get similar scores;
cascade: then a small cross-encoder over many candidates and the large one over the best of them; rerank: the large one
alone instead. Both are preceded by smoothing if that is among the profile's stages."""

VectorType = Literal["knn_vector", "dense_vector", "none"]
"""How an index holds embeddings: OpenSearch's field type, Elasticsearch's, or none if the cluster cannot search
vectors."""


VectorEncoding = Literal["float", "byte"]
"""How an index holds a component of an embedding: as float32, or as a signed byte. A vector's bytes are its components
divided by the largest of them, times 127: cosine, by which they are compared, does not depend on a vector's length."""

Codes = Literal["none", "sign", "planes", "terms"]
"""Which codes documents have (`bridge.cluster.dialects.code_of`), for smoothing and diversity. sign: one bit per
dimension of the mean of a document's embeddings, 1 if the component is above zero. planes: the same, and as many bits
(1,024 at most) of the mean's projections onto pseudo-random planes. terms: 384 bits of such projections of a document's
weighted terms."""


TermsType = Literal["rank_features", "sparse_vector"]
"""How an index holds a document's terms and their weights; the second is Elasticsearch's own from 8.15."""


class ModelReference(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """A model by name and by digest (first 12 hex digits of the SHA-256 of its ONNX file)."""

    name: str
    digest: str

    @property
    def identity(self) -> str:
        """`name@digest`: what stamps and caches are keyed by."""
        return f"{self.name}@{self.digest}"


class PassageSettings(msgspec.Struct, frozen=True):
    """How a document is split into passages; sizes in tokens of the encoder.

    - `layout`: `single` has one embedding per document, in `OBJECT.embedding`; `nested` has one per passage, in
      `OBJECT.passages`.
    """

    layout: Literal["single", "nested"] = "single"
    max_tokens: Annotated[int, Meta(ge=1)] = 256
    overlap_tokens: Annotated[int, Meta(ge=0)] = 32


class SparseSettings(msgspec.Struct, frozen=True):
    """How documents and queries get weighted terms (Formal et al. 2021, "SPLADE").

    - `encoder`: the sparse encoder.
    - `top_terms`: how many of a document's terms are stored, the largest.
    - `queries`: idf weights the query's own word pieces by their inverse document frequency, without a model at
      query time; model weights terms as the encoder does for documents.
    - `terms_type`: the field type, which the cluster decides when the field is made.
    """

    encoder: ModelReference
    top_terms: Annotated[int, Meta(ge=1, le=128)] = 128
    queries: Literal["idf", "model"] = "idf"
    terms_type: TermsType = "rank_features"


class ImageSettings(msgspec.Struct, frozen=True):
    """How documents get a vector of their picture, in the space of questions.

    - `field`: the application's field that names or holds the picture; of several the first counts.
    - `encoder`: the image encoder; its tower for texts reads questions.
    """

    field: str
    encoder: ModelReference
    dimension: Annotated[int, Meta(ge=1, le=65_536)]


LEGS = ("lexical", "expansion", "vector", "sparse", "image")
"""The searches whose rankings are fused, in the order in which they are shown."""

SPARSE_WEIGHTS = {"lexical": 0.0, "expansion": 0.6, "sparse": 0.4}
"""The legs' weights if documents have terms and no vectors. Beside vectors, terms weigh nothing unless a profile says
so: there they add little."""


IMAGE_WEIGHT = 0.5
"""The weight of the leg that searches pictures, beside 1 for texts and 1 for their vectors."""


class FusionSettings(msgspec.Struct, frozen=True):
    """How the legs' rankings become one; docs/decisions/0004-fusion.md says why standard scores are the default.

    - `weights`: weight of each leg, by its name; a leg without one does not count. A static encoder gives vectors 0.3.
    - `k`: the rank constant of RRF.
    - `smoothing`: the share of a document's neighbours in its smoothed score.
    """

    method: Literal["rrf", "minmax", "zscore"] = "zscore"
    k: Annotated[int, Meta(ge=0, le=1_000_000)] = 60
    weights: dict[str, Weight] = msgspec.field(
        default_factory=lambda: {"lexical": 0.0, "expansion": 1.0, "vector": 1.0}
    )
    smoothing: Annotated[float, Meta(ge=0, le=1)] = 0.3


STATIC_FUSION = FusionSettings(weights={"lexical": 0.0, "expansion": 1.0, "vector": 0.3})
"""For vectors of a static encoder: with equal weights such vectors cost more than they bring
(docs/explanation/models.md)."""


class CascadeSettings(msgspec.Struct, frozen=True):
    """The cascade of two cross-encoders: the small one reads the first `candidates` documents, the large one the best
    `depth` of them (Matveeva et al. 2006, "High accuracy retrieval with multiple nested ranker")."""

    candidates: Count = 100
    depth: Count = 20


PassageScores = Literal["max", "mean", "sum"]
"""How the scores of a document's passages become one."""


class RerankSettings(msgspec.Struct, frozen=True):
    """How the fused ranking is reranked.

    - `model`: the cross-encoder.
    - `depth`: how many documents stage rerank reads; `cascade` says it for stage cascade.
    - `blend`: weight of the fused score, normalised to 0…1 over the candidates; the cross-encoder's is 1 - `blend`.
    - `passages`: how many passages of a document stage rerank reads, those nearest to the query; stage cascade reads
      one.
    - `passage_scores`: how their scores become the document's.
    """

    model: str = "rerank-base"
    depth: Count = 30
    blend: Annotated[float, Meta(ge=0, le=1)] = 0.6
    passages: Count = 1
    passage_scores: PassageScores = "max"
    cascade: CascadeSettings = CascadeSettings()


class SearchRules(msgspec.Struct, frozen=True):
    """Which searches the proxy passes although it understands them, and what of an application's own query counts.

    - `leave_quoted`: searches in quotation marks.
    - `leave_identifiers`: single words with three digits or more, such as part numbers. Like quoted words, they ask for
      these very words and for nothing similar.
    - `leave_sorted_ties`: searches sorted by score, and by other fields if scores are equal. An application that pages
      by `from`, and not by `search_after`, can have them upgraded.
    - `scripts`: the writing systems that the models read, as `bridge.text` names them. Searches in
      others pass. An empty list lets none pass for this reason.
    - `confident_lead`: the text leg alone ranks if its first score is this many times its second. None lets all legs
      rank always.
    - `boosts`: the share of the lifts by the application's own boosts that counts; at 0 it has no pins either.
    - `diversity`: how much a document's likeness to those before it counts against it; 0: not at all.
    - `sentences`: whether a hit without a highlight that the application wants gets the sentence that answers.
    - `repair`: words that no document holds count as the near ones that documents hold.
    """

    leave_quoted: bool = True
    leave_identifiers: bool = True
    leave_sorted_ties: bool = True
    scripts: list[str] = []
    confident_lead: Annotated[float, Meta(gt=0)] | None = None
    boosts: Annotated[float, Meta(ge=0, le=1)] = 1.0
    diversity: Annotated[float, Meta(ge=0, le=1)] = 0.0
    sentences: bool = False
    repair: bool = False


class Measurement(msgspec.Struct, frozen=True):
    """What a verdict is based on: the source of the judgements, the number of queries, the measure, and the time
    (ISO 8601, UTC)."""

    judgements: str
    queries: int
    measure: str
    measured_at: str


class StageVerdict(msgspec.Struct, frozen=True):
    """The gate's result for one stage.

    - `mean`: of the measure.
    - `p50_ms`, `p95_ms`: of one search, at the client.
    - `against`: the stage that it is compared with; None for the first stage.
    - `difference`: of the means over the same queries, with its paired 95 % interval `low`…`high`.
    - `forced`: the operator's reason if the operator decided.
    - `undecided`: why the measurement decides nothing; the stage then serves if it served before.
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
    undecided: str | None = None


class GateRecord(msgspec.Struct, frozen=True):
    """Why these `stages` serve. A stage is enabled if `low` is at most `tolerance` below zero and the interval is
    evidence. `measurement` is None if stages were forced without one."""

    verdicts: list[StageVerdict]
    tolerance: float
    measurement: Measurement | None = None


class TunedPoint(msgspec.Struct, frozen=True):
    """One of the settings with the best quality for their time.

    - `mean`: of the measure, over queries that had no part in the choice.
    - `p95_ms`: estimated.
    - `setting`: in words.
    """

    p95_ms: float
    mean: float
    setting: str


class TuningRecord(msgspec.Struct, frozen=True):
    """Where fusion and rerank settings come from.

    - `default_mean`, `tuned_mean`: held-out means of the settings before and of the chosen ones.
    - `low`, `high`: 95 % interval of their paired difference.
    - `front`: the settings with the best quality for their time.
    """

    measurement: Measurement
    folds: int
    budget_p95_ms: float | None
    default_mean: float
    tuned_mean: float
    low: float
    high: float
    front: list[TunedPoint]


class Calibration(msgspec.Struct, frozen=True):
    """How probable it is that an index answers a question, by the vector leg's score of the nearest document: the
    logistic function of `slope` × (score - `middle`) (Platt 1999, "Probabilistic outputs for support vector machines").

    - `encoder`, `generation`: what gave the scores; the calibration counts for no other.
    - `auc`: the probability that a question which the index answers has a higher score than one which it does not, with
      its 95 % interval `low`…`high`.
    - `far_questions`: how many questions it does not answer; `measurement` says which ones it does.
    """

    slope: Annotated[float, Meta(gt=0)]
    middle: float
    encoder: str
    generation: int
    auc: float
    low: float
    high: float
    far_questions: int
    measurement: Measurement


SEPARATE_BOOST = 0.25
"""Weight of predicted queries that are scored by themselves: in a short field a single word counts for much."""

TOGETHER_BOOST = 1.0
"""Weight of text and predicted queries scored as one field; docs/explanation/benchmarks.md has the figures for both."""


class FilterThreshold(msgspec.Struct, frozen=True):
    """The score that predicted queries must reach; only ingest reads it.

    Of the queries that `generator` predicted for a sample of documents, `percentile` % got a lower score from `model`.
    """

    generator: str
    model: str
    percentile: float
    score: float


class IndexProfile(msgspec.Struct, frozen=True):
    """The whole of `_meta.neural_bridge`.

    - `text_fields`: names of the text fields (dots for objects) that are expanded, embedded and reranked.
    - `object_field`: our one object in each document.
    - `window`: how many documents each leg returns and the fused ranking holds; pages inside it are stable.
    - `expanded_fields`: text fields that are scored together with the predicted queries, as one field (BM25F: Robertson
      et al. 2004); empty if predicted queries are scored by themselves.
    - `expansion_boost`: weight of that score beside the application's own.
    - `rules`: which searches pass.
    - `stages`: the stages that may serve this index (the gate's verdict); a search stops at the last one.
    - `gate`, `tuning`: the evidence; no search reads it.
    - `calibration`: what scores of the vector leg mean; None if that was not measured.
    - `generation`: which set of our fields, counted from 1; each has its own models.
    - `vector_type`: if it is none, the encoder is used only to measure passages.
    - `vector_encoding`: float if a profile does not name it, because older indices hold float32.
    - `codes`: which codes documents have if they have what those are made of; none if a profile does not name them,
      because documents of older indices have none: their scores are not smoothed.
    - `sparse`: how documents have weighted terms; None if they have none.
    - `image`: how documents have a vector of their picture; None if they have none.
    - `filter_threshold`: which predicted queries are stored, if a share of all of them decides that.
    - `beside`: the application's index, if this profile is of its companion (`bridge.cluster.companion`); for a search
      of several, all of them with commas between.
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
        default_factory=lambda: ["lexical", "expansion", "vector", "hybrid", "smoothing", "rerank"]
    )
    gate: GateRecord | None = None
    tuning: TuningRecord | None = None
    calibration: Calibration | None = None
    generation: Annotated[int, Meta(ge=1)] = 1
    vector_type: VectorType = "knn_vector"
    vector_encoding: VectorEncoding = "float"
    codes: Codes = "none"
    sparse: SparseSettings | None = None
    image: ImageSettings | None = None
    filter_threshold: FilterThreshold | None = None
    beside: str | None = None
    version: int = PROFILE_VERSION

    @property
    def generation_field(self) -> str:
        """Full name of the object that holds the fields of this generation: our object itself for the first one, an
        object inside it for a later one. A companion holds one generation, in our object itself."""
        alone = self.generation == 1 or self.beside is not None
        return self.object_field if alone else f"{self.object_field}.generation_{self.generation}"

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
    def embedding_bytes(self) -> int:
        """Bytes of one embedding in the index."""
        return self.dimension * (1 if self.vector_encoding == "byte" else 4)

    @property
    def valid_calibration(self) -> Calibration | None:
        """The calibration, if it was made with the present models and generation."""
        made = self.calibration
        present = (self.encoder.identity, self.generation)
        return made if made is not None and (made.encoder, made.generation) == present else None

    @property
    def has_vectors(self) -> bool:
        """Whether documents have embeddings."""
        return self.vector_type != "none"

    @property
    def has_codes(self) -> bool:
        """Whether documents have codes, which are made of their embeddings or of their weighted terms."""
        return self.codes != "none" and (self.has_terms if self.codes == "terms" else self.has_vectors)

    @property
    def encoded_fields(self) -> list[str]:
        """Full names of the fields that hold what encoders make of a document."""
        vectors = [self.embedding_field] if self.has_vectors else []
        codes = [self.code_field] if self.has_codes else []
        terms = [self.terms_field] if self.has_terms else []
        images = [self.image_embedding_field] if self.image is not None else []
        return [*vectors, *codes, *terms, *images]

    @property
    def has_terms(self) -> bool:
        """Whether documents have weighted terms."""
        return self.sparse is not None

    @property
    def terms_field(self) -> str:
        """Full name of the field that holds a document's terms and their weights."""
        return f"{self.generation_field}.terms"

    @property
    def image_field(self) -> str | None:
        """Full name of the application's field that names or holds a document's picture."""
        return self.image.field if self.image is not None else None

    @property
    def read_fields(self) -> list[str]:
        """Full names of the application's fields that documents are enriched by."""
        return [*self.text_fields, *([self.image.field] if self.image is not None else [])]

    @property
    def image_embedding_field(self) -> str:
        """Full name of the field that holds the vector of a document's picture."""
        return f"{self.generation_field}.image_embedding"

    @property
    def passages_field(self) -> str:
        """Full name of the nested object that holds one embedding per passage."""
        return f"{self.generation_field}.passages"

    @property
    def code_field(self) -> str:
        """Full name of the binary field that holds a document's code."""
        return f"{self.generation_field}.code"

    @property
    def stamp_field(self) -> str:
        """Full name of the keyword field that holds the stamp."""
        return f"{self.generation_field}.stamp"

    @property
    def entry_id_field(self) -> str:
        """Full name of the field of a companion that holds the document's id as a doc value: `_id` is a stored field,
        which takes three times as long to read."""
        return f"{self.generation_field}.{ENTRY_ID}"

    @property
    def beside_indices(self) -> list[str]:
        """The application's indices whose companions are searched."""
        return self.beside.split(",") if self.beside else []

    def to_meta(self) -> dict[str, Any]:
        """The value to store under `META_KEY`."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built


def companion_of(index: str, prefix: str, generation: int = 1) -> str:
    """The name of an index's companion: two names take turns, since a second generation is a second companion."""
    return f"{prefix}{index}" if generation % 2 else f"{prefix}{index}~2"


def companions_of(index: str, prefix: str) -> list[str]:
    """The two names that companions of an index may have."""
    return [companion_of(index, prefix, generation) for generation in (1, 2)]


def object_of(meta: object) -> str | None:
    """The name of our object in documents of the index with this `_meta`, whether or not the rest of the profile can be
    read; None if they have none."""
    block = meta.get(META_KEY) if isinstance(meta, dict) else None
    if not isinstance(block, dict) or block.get("beside") is not None:
        return None
    return str(block.get("object_field", DEFAULT_OBJECT))


def profile_of(meta: object, *, index: str) -> IndexProfile | None:
    """Reads the profile from a mapping's `_meta` object; None if it holds none.

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


def profile_beside(metas: Mapping[str, object], index: str, prefix: str) -> IndexProfile | None:
    """The profile by which the companion of an index is searched, from the `_meta` of its companions by their names;
    None if none of them has one.

    The companion of the second name serves if it has a profile for searches, else that of the first.

    Raises:
        IndexUnsuitable: as `profile_of`.
    """
    for generation in (2, 1):
        name = companion_of(index, prefix, generation)
        profile = profile_of(metas.get(name), index=name)
        # Whoever may write a mapping could name another index in it.
        if profile is not None and profile.beside == index:
            return profile
    return None


def _with_field_names(block: object) -> object:
    """`block` with plain names as text fields: older profiles hold objects, `{"name": "title"}`."""
    if not isinstance(block, dict) or not isinstance(fields := block.get("text_fields"), list):
        return block
    names = [field.get("name") if isinstance(field, dict) else field for field in fields]
    return {**block, "text_fields": names}

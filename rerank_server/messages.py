"""Request and answer shapes of the sidecar.

Field and path distinguish the dialects: text-embeddings-inference (`texts` → an array), Cohere and Jina (`documents` →
an object with `results`), infinity (`/infinity/rerank` → the same with documents as strings), OpenSearch's default
rerank post-processor (`/opensearch/rerank` → an array with `relevance_score`), and OpenAI (embeddings). Unknown fields
are ignored, since each client library sends some of its own. Values are never converted: `"3"` is no number.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue

from bridge.model_servers.shapes import Term
from bridge.records import Terms
from bridge.text import decode, replace_lone_surrogates
from rerank_server.errors import EmptyRequest, InvalidRequest, TooLarge


@dataclass(frozen=True, slots=True)
class Scored:
    """A request's scores: logits, input order. `tokens` were computed for them."""

    model: str
    scores: list[float]
    tokens: int


class Message(BaseModel):
    """A request's body. Clients send `null` for a field that is not set."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        for name, field in schema.get("properties", {}).items():
            if name not in schema.get("required", ()) and {"type": "null"} not in field.get("anyOf", ()):
                said = {key: field.pop(key) for key in ("description", "default", "title") if key in field}
                schema["properties"][name] = {"anyOf": [field, {"type": "null"}], **said}
        return schema


def _as_whole(value: object) -> object:
    """`3.0` as 3: JSON has one kind of number, and JSON Schema calls this one an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_as_whole)


_Document = (
    str
    | Annotated[
        dict[str, Any],
        WithJsonSchema({"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}),
    ]
)


def _in_words(schema: dict[str, Any], *names: str) -> None:
    """Describes fields whose values may be refused for reasons that JSON Schema has no words for."""
    for name in names:
        field = schema["properties"].pop(name)
        schema["description"] += f"\n\nAlso `{name}`: {field['description']}"


def _rerank_schema(schema: dict[str, Any]) -> None:
    """Adds what `_one_list` and `checked_texts` check: to the schema if it can express that, else in words."""
    _in_words(schema, "prior_scores", "truncate", "rank_fields")
    filled, absent = {"type": "array", "minItems": 1}, {"type": "null"}
    schema["oneOf"] = [
        {"required": ["texts"], "properties": {"texts": filled, "documents": absent}},
        {"required": ["documents"], "properties": {"texts": absent, "documents": filled}},
    ]


class RerankRequest(Message):
    """Scores passages for a query. Exactly one of `texts` and `documents` holds the passages."""

    model_config = ConfigDict(json_schema_extra=_rerank_schema)

    query: str
    texts: list[str] | None = Field(None, description="Passages, in the dialect of text-embeddings-inference.")
    documents: list[_Document] | None = Field(
        None, description="Passages, as Cohere and Jina name them: texts, or objects whose `text` is read."
    )
    rank_fields: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="an array of names: the fields of `documents` to read, in this order, in place of `text`."
    )
    top_n: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        None, description="Number of best passages in the answer; all of them if there are fewer."
    )
    top_k: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        None, description="`top_n`, as some clients call it; `top_n` counts if both are sent."
    )
    return_text: bool = Field(False, description="Repeat each passage in the answer (`texts`).")
    return_documents: bool = Field(False, description="Repeat each passage in the answer (`documents`).")
    raw_scores: bool = Field(False, description="Give the model's logits; by default they are mapped to 0…1.")
    truncate: bool = Field(
        True,
        description="true (default) or false: refuse a text that the model cannot read as a whole, rather than cut it.",
    )
    model: str | None = Field(None, description="One of the models in /info; another name means the default one.")
    cascade_depth: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        None, description="The small model reads all passages, and the model only this many, the best of them."
    )
    prior_scores: list[float] | None = Field(
        None,
        description="With `cascade_depth`: an array of numbers, one score per passage, from the search that found "
        "them. Which passages the model reads is then decided by them and the small model together, each stretched to "
        "0…1.",
    )
    prior_weight: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5, description="Weight of `prior_scores` in that decision."
    )
    cascade_margin: Annotated[float, Field(ge=0)] | None = Field(
        None,
        description="With `cascade_depth` and `top_n`: leave out what the small model puts more logits than this below "
        "its own `top_n`-th.",
    )
    max_tokens_per_doc: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        None,
        description="Read so many tokens of each document, in windows of which the best counts; by default a document "
        "is cut to what fits beside the query.",
    )

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if (self.texts is None) == (self.documents is None):
            raise ValueError("exactly one of `texts` and `documents` is needed")
        n_passages = len(self.passages)
        if self.prior_scores is not None and len(self.prior_scores) != n_passages:
            raise ValueError(
                f"`prior_scores` has {len(self.prior_scores)} numbers for {n_passages} passages: give one each"
            )
        return self

    @cached_property
    def passages(self) -> list[str]:
        """The passages' texts, whichever the dialect.

        Raises:
            InvalidRequest: an object among `documents` has none of the fields that are to be read.
        """
        if self.texts is not None:
            return self.texts
        return [self._text_of(document, place) for place, document in enumerate(self.documents or [])]

    @property
    def n_best(self) -> int | None:
        """How many passages the answer holds; None is all of them."""
        return self.top_n or self.top_k

    def _text_of(self, document: str | dict[str, Any], place: int) -> str:
        if isinstance(document, str):
            return document
        names = self.rank_fields or ["text"]
        texts = [document[name] for name in names if document.get(name) is not None]
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InvalidRequest(
                f"documents.{place}: a text is needed in {' or '.join(names)}, it has "
                f"{', '.join(map(str, document)) or 'no field'}: name others with `rank_fields`",
                field=f"documents.{place}",
            )
        return "\n".join(texts)


_ENCODER = (
    "One of the encoders in /info; another name means the default one, and is refused if it has a digest "
    "(`name@digest`)."
)


_Texts = str | Annotated[list[str], WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1})]
"""One text or several; `checked_texts` refuses an empty list, with a status of its own."""


class TextsRequest(Message):
    """Texts to do something with."""

    inputs: _Texts

    @property
    def texts(self) -> list[str]:
        """The texts, be it one."""
        return [self.inputs] if isinstance(self.inputs, str) else self.inputs


class EmbedRequest(TextsRequest):
    """Embeds texts, in the dialect of text-embeddings-inference."""

    role: Literal["query", "passage"] = Field("query", description="What the texts are; some models tell them apart.")
    model: str | None = Field(None, description=_ENCODER)


class SparseEmbedRequest(EmbedRequest):
    """Gives texts weighted terms, in the dialect of text-embeddings-inference."""

    queries: Literal["idf", "model"] = Field(
        "idf",
        description="idf weights a query's own word pieces by how rare they are, without the model.",
    )
    model: str | None = Field(None, description=_ENCODER.replace("encoders", "sparse encoders"))


class EmbeddingsRequest(Message):
    """Embeds texts, in the dialect of OpenAI."""

    model_config = ConfigDict(json_schema_extra=lambda schema: _in_words(schema, "dimensions"))

    input: _Texts
    role: Literal["query", "passage"] = Field("query", description="What the texts are; some models tell them apart.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1), WHOLE] | None = Field(
        None, description="a whole number, the encoder's own: embeddings cannot be shortened."
    )
    model: str | None = Field(None, description=_ENCODER)


class ExpandRequest(TextsRequest):
    """Predicts queries that texts may answer; the same request gives the same queries."""

    n_queries: Annotated[int, Field(ge=1, le=100), WHOLE] = Field(
        3, description="Queries sampled per text; equal ones count once."
    )
    max_new_tokens: Annotated[int, Field(ge=1, le=256), WHOLE] = Field(20, description="Longest query, in tokens.")
    seed: Annotated[int, Field(ge=0, le=2**31), WHOLE] = Field(0, description="Another seed gives other samples.")


Parsed = TypeVar("Parsed", bound=Message)


def parse(body: bytes, shape: type[Parsed]) -> Parsed:
    """Reads a request's body.

    Raises:
        InvalidRequest: no JSON, or a field is missing or wrong.
    """
    try:
        return shape.model_validate_json(replace_lone_surrogates(body))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        if problem["loc"][:1] in (("input",), ("inputs",)):
            field = str(problem["loc"][0])  # of the two forms that it may have, pydantic names one
        if _holds_token_ids(body, shape):
            raise InvalidRequest(
                "input: arrays of token ids belong to another model's vocabulary: send texts (LangChain: "
                "check_embedding_ctx_length=False)",
                field="input",
            ) from error
        raise InvalidRequest(f"{field or 'body'}: {problem['msg']}", field=field) from error


def asks_to_embed(body: bytes) -> bool:
    """Whether a request to the one address for everything has texts to embed, and none to rank."""
    try:
        members = decode(body, dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return False  # `parse` says what is wrong with it
    return "inputs" in members and bytes(members.get("query", b"null")) == b"null"


def _holds_token_ids(body: bytes, shape: type[Message]) -> bool:
    """Whether an input of OpenAI's shape is `[1, 2]` or `[[1, 2], [3]]`, as some clients send texts."""
    if shape is not EmbeddingsRequest:
        return False
    try:
        values = json.loads(body)["input"]
        flat = [each for row in values for each in (row if isinstance(row, list) else [row])]
        return bool(flat) and all(isinstance(each, int) for each in flat)
    except (ValueError, RecursionError, TypeError, KeyError):
        return False


def checked_texts(texts: Sequence[str], *, field: str, most: int) -> Sequence[str]:
    """`texts`, of which there are at least one and at most `most`.

    Raises:
        EmptyRequest: there is none.
        TooLarge: there are too many.
    """
    if not texts:
        raise EmptyRequest(f"{field}: at least one text is needed", field=field)
    if len(texts) > most:
        raise TooLarge(f"{field}: {len(texts)} texts came, one request may hold {most}: send several requests")
    return texts


def rerank_answer(request: RerankRequest, scored: Scored, *, plain_documents: bool = False) -> bytes:
    """The answer in the request's own dialect: best first, equal scores in the order given.

    `plain_documents`: repeat documents as strings, as infinity does; Cohere, Jina and vLLM make objects of them.
    """
    ranked = _ranked(scored.scores)[: request.n_best]
    passages = request.passages
    shown = _shown(request, scored)
    if request.texts is not None:
        return msgspec.json.encode(
            [
                {"index": index, "score": shown[index], **({"text": passages[index]} if request.return_text else {})}
                for index in ranked
            ]
        )
    results = [
        {
            "index": index,
            "relevance_score": shown[index],
            **({"document": _document(passages[index], plain_documents)} if request.return_documents else {}),
        }
        for index in ranked
    ]
    usage = {"total_tokens": scored.tokens, "prompt_tokens": scored.tokens}
    return msgspec.json.encode({"model": scored.model, "results": results, "usage": usage, "meta": {}})


def opensearch_rerank_answer(request: RerankRequest, scored: Scored) -> bytes:
    """The array that OpenSearch's default rerank post-processor reads. `top_n` is not applied, since it sizes
    its own array by the answer and fills it by index."""
    shown = _shown(request, scored)
    return msgspec.json.encode([{"index": index, "relevance_score": shown[index]} for index in _ranked(scored.scores)])


def embed_answer(embeddings: NDArray[np.float32]) -> bytes:
    """One array of numbers per text, input order."""
    return msgspec.json.encode(embeddings.tolist())


def sparse_answer(terms: Sequence[Terms], ids: Mapping[str, int]) -> bytes:
    """One array of terms per text, input order, the largest weight first."""
    return msgspec.json.encode(
        [[Term(ids[token], value, token) for token, value in of_text.items()] for of_text in terms]
    )


def embeddings_answer(request: EmbeddingsRequest, embeddings: NDArray[np.float32], *, model: str, tokens: int) -> bytes:
    """OpenAI's list of embeddings; base64 holds little-endian float32."""
    values: list[Any] = (
        [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in embeddings]
        if request.encoding_format == "base64"
        else embeddings.tolist()
    )
    data = [{"object": "embedding", "index": index, "embedding": value} for index, value in enumerate(values)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": data, "model": model, "usage": usage})


def expand_answer(queries: Sequence[Sequence[str]]) -> bytes:
    """One array of queries per text, input order."""
    return msgspec.json.encode(queries)


def _document(text: str, plain: bool) -> str | dict[str, str]:
    return text if plain else {"text": text}


def _shown(request: RerankRequest, scored: Scored) -> list[float]:
    return scored.scores if request.raw_scores else [_sigmoid(score) for score in scored.scores]


def _ranked(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def _sigmoid(logit: float) -> float:
    # Two forms, so that neither exponential overflows.
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    return math.exp(logit) / (1.0 + math.exp(logit))

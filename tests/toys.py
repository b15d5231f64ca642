"""Tiny models with outcomes that a reader can foresee: real ONNX files, opened by the same code as the real ones.

The toy encoder's embedding of a text is a count of its words, at unit length: each word of the vocabulary
has a dimension of its own. So the cosine of two texts tells how many words they share, and words that the
vocabulary lacks count for nothing.

The toy sparse encoder's terms are the words of a text, each with its number of occurrences as weight.

The toy cross-encoder's score is the number of the query's words (each occurrence) that the passage holds.

The toy query generator writes words of the passage, in any order.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from msgspec import structs
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from bridge.models.artifact import IDF, TOKENIZER, Kind, Manifest, ModelFolder, names_only, write_manifest
from bridge.models.token_vectors import VECTORS_FILE, save

_WORDS = (
    "wing pressure flow heat shock boundary layer supersonic plate cylinder "
    "file path read write open close folder copy delete line "
    "date time day week month year hour minute run every "
    "red blue green cheap laptop phone shoe dress house garden "
    "cat dog bird fish horse cow sheep goat mouse bee"
)
WORDS = _WORDS.split()
"""The default vocabulary: no two words mean the same."""

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def toy_tokenizer(words: Sequence[str] = WORDS) -> Tokenizer:
    """Lower-cased words between white space and punctuation; ids in the order given, after the special ones."""
    vocabulary = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer


def make_toy_encoder(folder: Path, words: Sequence[str] = WORDS, *, max_tokens: int = 64) -> ModelFolder:
    """Writes the toy encoder into `folder`; its dimension is the number of words."""
    table = np.zeros((len(SPECIAL_TOKENS) + len(words), len(words)), dtype=np.float32)
    table[len(SPECIAL_TOKENS) :] = np.eye(len(words), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "toy_encoder",
        [_tokens("input_ids"), _tokens("attention_mask")],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", len(words)])],
        [numpy_helper.from_array(table, "table")],
    )
    return _write(folder, graph, "encoder", words, max_tokens=max_tokens, dimension=len(words))


def make_toy_static_encoder(folder: Path, words: Sequence[str] = WORDS, *, max_tokens: int = 64) -> ModelFolder:
    """Writes into `folder` a static encoder that embeds as the toy encoder does."""
    folder.mkdir(parents=True, exist_ok=True)
    table = np.zeros((len(SPECIAL_TOKENS) + len(words), len(words)), dtype=np.float32)
    table[len(SPECIAL_TOKENS) :] = np.eye(len(words), dtype=np.float32)
    save(table, folder / VECTORS_FILE)
    toy_tokenizer(words).save(str(folder / TOKENIZER))
    manifest = Manifest(
        kind="static_encoder",
        name="toy-static-encoder",
        licence="Apache-2.0",
        max_tokens=max_tokens,
        dimension=len(words),
        files=names_only([VECTORS_FILE, TOKENIZER]),
        file=VECTORS_FILE,
    )
    return write_manifest(folder, manifest)


def make_toy_sparse_encoder(
    folder: Path,
    words: Sequence[str] = WORDS,
    *,
    max_tokens: int = 64,
    idf: Mapping[str, float] | None = None,
    outputs: Sequence[str] = ("weights", "ids"),
) -> ModelFolder:
    """Writes the toy sparse encoder into `folder`; `idf` weights the words of queries, those that it lacks by 0."""
    tokens = [*SPECIAL_TOKENS, *words]
    table = np.eye(len(tokens), dtype=np.float32)
    table[: len(SPECIAL_TOKENS)] = 0
    weights, ids = outputs
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
            helper.make_node("ReduceSum", ["rows", "axis_1"], ["counts"], keepdims=0),
            helper.make_node("TopK", ["counts", "n_terms"], [weights, ids]),
        ],
        "toy_sparse_encoder",
        [_tokens("input_ids"), _tokens("attention_mask")],
        [
            helper.make_tensor_value_info(weights, TensorProto.FLOAT, ["batch", 16]),
            helper.make_tensor_value_info(ids, TensorProto.INT64, ["batch", 16]),
        ],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis_1"),
            numpy_helper.from_array(np.array([16], dtype=np.int64), "n_terms"),
        ],
    )
    made = _write(folder, graph, "sparse_encoder", words, max_tokens=max_tokens)
    if idf is None:
        return made
    np.save(folder / IDF, np.array([idf.get(token, 0.0) for token in tokens], dtype=np.float32))
    return write_manifest(folder, structs.replace(made.manifest, files={**made.manifest.files, IDF: ""}))


def make_toy_cross_encoder(
    folder: Path, words: Sequence[str] = WORDS, *, max_tokens: int = 64, name: str | None = None
) -> ModelFolder:
    """Writes the toy cross-encoder into `folder`."""
    return _write_cross_encoder(folder, [], {}, "found_words_count", words, max_tokens=max_tokens, name=name)


def make_toy_query_generator(folder: Path, words: Sequence[str] = WORDS, *, max_tokens: int = 64) -> ModelFolder:
    """Writes the toy query generator into `folder`, for CTranslate2: an encoder-decoder of one layer each, whose
    cross-attention looks at all of the passage alike and hands through which words it holds."""
    from ctranslate2.specs import transformer_spec  # an optional package

    tokens = [*SPECIAL_TOKENS, *words]
    width = len(tokens)
    zeros, identity = np.zeros((width, width), dtype=np.float32), np.eye(width, dtype=np.float32)
    word_table = identity.copy()
    word_table[: len(SPECIAL_TOKENS)] = 0
    spec = transformer_spec.TransformerSpec.from_config((1, 1), 1, pre_norm=False)
    for half in (spec.encoder, spec.decoder):
        half.scale_embeddings = False
        half.position_encodings.encodings = np.zeros((max_tokens, width), dtype=np.float32)
        layer = half.layer[0]
        layer.self_attention.linear[0].weight = np.concatenate([zeros] * 3)
        layer.self_attention.linear[1].weight = zeros
        layer.ffn.linear_0.weight = zeros
        layer.ffn.linear_1.weight = zeros
        norms = [layer.self_attention.layer_norm, layer.ffn.layer_norm]
        if half is spec.decoder:
            layer.attention.linear[0].weight = zeros
            layer.attention.linear[1].weight = np.concatenate([zeros, identity])
            layer.attention.linear[2].weight = identity
            norms.append(layer.attention.layer_norm)
        for norm in norms:
            norm.gamma, norm.beta = np.ones(width, dtype=np.float32), np.zeros(width, dtype=np.float32)
    spec.encoder.embeddings[0].weight = word_table
    spec.decoder.embeddings.weight = zeros
    spec.decoder.projection.weight = 3 * word_table
    # As likely as a word of a passage of three words.
    spec.decoder.projection.bias = np.where(np.arange(width) == tokens.index("[SEP]"), 12, 0).astype(np.float32)
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.bos_token = spec.config.decoder_start_token = "[CLS]"
    spec.config.eos_token, spec.config.unk_token = "[SEP]", "[UNK]"
    spec.validate()
    spec.optimize(quantization="int8")
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    converted = [path.name for path in folder.iterdir()]
    toy_tokenizer(words).save(str(folder / TOKENIZER))
    manifest = Manifest(
        kind="query_generator",
        name="toy-query-generator",
        licence="Apache-2.0",
        max_tokens=max_tokens,
        files=names_only([*converted, TOKENIZER]),
        file="model.bin",
    )
    return write_manifest(folder, manifest)


def make_faulty_cross_encoder(folder: Path, words: Sequence[str] = WORDS) -> ModelFolder:
    """Writes a cross-encoder whose score is NaN where exactly one of the query's words is found, else 0."""
    nodes = [
        helper.make_node("Sub", ["found_words_count", "one"], ["one_less"]),
        helper.make_node("Sub", ["found_words_count", "found_words_count"], ["zero"]),
        helper.make_node("Div", ["zero", "one_less"], ["zero_by_one_less"]),
    ]
    return _write_cross_encoder(folder, nodes, {"one": np.array(1, dtype=np.float32)}, "zero_by_one_less", words)


def make_negated_cross_encoder(folder: Path, words: Sequence[str] = WORDS) -> ModelFolder:
    """Writes the toy cross-encoder with its scores negated: the better a passage answers, the lower it stands."""
    nodes = [helper.make_node("Neg", ["found_words_count"], ["negated_count"])]
    return _write_cross_encoder(folder, nodes, {}, "negated_count", words)


def make_slow_cross_encoder(folder: Path, words: Sequence[str] = WORDS, *, products: int = 20) -> ModelFolder:
    """Writes the toy cross-encoder with `products` needless matrix products per pair, a millisecond or two each."""
    width = 384
    constants: dict[str, NDArray[np.generic]] = {
        "seed": np.zeros((1, width), dtype=np.float32),
        "matrix": np.zeros((width, width), dtype=np.float32),
        "square": np.array([width, width], dtype=np.int64),
    }
    nodes = [
        # A product with the pair's own score, so that nothing can be computed when the model is loaded.
        helper.make_node("MatMul", ["found_words_count", "seed"], ["row"]),
        helper.make_node("Expand", ["row", "square"], ["product_0"]),
    ]
    nodes += [
        helper.make_node("MatMul", [f"product_{number}", "matrix"], [f"product_{number + 1}"])
        for number in range(products)
    ]
    nodes += [
        helper.make_node("ReduceSum", [f"product_{products}"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["found_words_count", "nothing"], ["slow_count"]),
    ]
    return _write_cross_encoder(folder, nodes, constants, "slow_count", words)


def save_model(path: Path, graph: onnx.GraphProto) -> None:
    """Checks the graph and writes it as a model of an opset that every supported ONNX Runtime reads."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, str(path))


def _write_cross_encoder(
    folder: Path,
    more_nodes: Sequence[onnx.NodeProto],
    more_constants: Mapping[str, NDArray[np.generic]],
    output: str,
    words: Sequence[str],
    *,
    max_tokens: int = 64,
    name: str | None = None,
) -> ModelFolder:
    """The graph that counts the query's words in the passage (`found_words_count`), and what follows it."""
    constants: dict[str, NDArray[np.generic]] = {
        "last_special": np.array(len(SPECIAL_TOKENS) - 1, dtype=np.int64),
        "passage_segment": np.array(1, dtype=np.int64),
        "axis_1": np.array([1], dtype=np.int64),
        "axis_2": np.array([2], dtype=np.int64),
        **more_constants,
    }
    nodes = [
        helper.make_node("Greater", ["input_ids", "last_special"], ["is_word"]),
        helper.make_node("Equal", ["token_type_ids", "passage_segment"], ["in_passage"]),
        helper.make_node("Not", ["in_passage"], ["in_query"]),
        helper.make_node("And", ["is_word", "in_query"], ["query_word"]),
        helper.make_node("Unsqueeze", ["input_ids", "axis_2"], ["column"]),
        helper.make_node("Unsqueeze", ["input_ids", "axis_1"], ["row_of_ids"]),
        helper.make_node("Equal", ["column", "row_of_ids"], ["same_word"]),
        helper.make_node("Unsqueeze", ["in_passage", "axis_1"], ["row_in_passage"]),
        helper.make_node("And", ["same_word", "row_in_passage"], ["matches"]),
        helper.make_node("Cast", ["matches"], ["match_counts"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["match_counts"], ["found"], axes=[2], keepdims=0),
        helper.make_node("Cast", ["query_word"], ["query_weights"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["found", "query_weights"], ["found_words"]),
        helper.make_node("ReduceSum", ["found_words", "axis_1"], ["found_words_count"], keepdims=1),
        *more_nodes,
    ]
    graph = helper.make_graph(
        nodes,
        "toy_cross_encoder",
        [_tokens("input_ids"), _tokens("attention_mask"), _tokens("token_type_ids")],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return _write(folder, graph, "cross_encoder", words, max_tokens=max_tokens, name=name)


def _write(
    folder: Path,
    graph: onnx.GraphProto,
    kind: Kind,
    words: Sequence[str],
    *,
    max_tokens: int,
    dimension: int | None = None,
    name: str | None = None,
) -> ModelFolder:
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / "model.onnx", graph)
    toy_tokenizer(words).save(str(folder / TOKENIZER))
    manifest = Manifest(
        kind=kind,
        name=name or f"toy-{kind.replace('_', '-')}",
        licence="Apache-2.0",
        max_tokens=max_tokens,
        dimension=dimension,
        files=names_only(["model.onnx", TOKENIZER]),
    )
    return write_manifest(folder, manifest)


def _tokens(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "tokens"])

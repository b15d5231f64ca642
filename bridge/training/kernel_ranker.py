"""Fits a kernel ranker on an encoder's word table: the cheapest first stage of a cascade (Xiong et al. 2017,
"End-to-end neural ad-hoc ranking with kernel pooling": https://arxiv.org/abs/1706.06613).

Every query word is compared with every passage word by the cosine of their static embeddings. Gaussian kernels count
the cosines near 1, near 0.9, … near -0.9, and the score is a weighted sum of the counts' logarithms. The embeddings are
not trained, so only a few weights are fitted, in seconds. Words are weighted by rarity, as in BM25; the paper's model
learns rarity with its embeddings.

The graph has a cross-encoder's inputs and outputs, so `sidecar.cascade_model` can name it.
"""

import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import onnx
import structlog
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import ModelError, UsageError
from bridge.models.artifact import ModelFolder, resolve, verify
from bridge.models.session import Session
from bridge.models.tokenization import INPUT_NAMES, TextTokenizer, load_tokenizer
from bridge.training.data import read_value
from bridge.training.mining import CandidateSet
from bridge.training.teachers import fitted_weights
from bridge.training.transformers_folder import Card, write_model

CENTRES = np.array([1.0, 0.9, 0.7, 0.5, 0.3, 0.1, -0.1, -0.3, -0.5, -0.7, -0.9], dtype=np.float32)
WIDTHS = np.array([1e-3] + [0.1] * 10, dtype=np.float32)
"""Widths of the kernels; the first kernel counts equal words, as in the paper."""

NEGATIVES = 7
STEPS, STEP_SIZE, DECAY = 1500, 0.02, 1e-3

log = structlog.get_logger(__name__)


def fit(
    encoder: ModelFolder, candidates: CandidateSet, out: Path, *, name: str, n_lists: int = 2500, seed: int = 0
) -> ModelFolder:
    """Fits the weights on `n_lists` candidate lists and writes the model folder.

    Raises:
        ModelError: the encoder's graph has no word table.
        UsageError: too few lists have enough negatives.
    """
    verify(encoder, kind="encoder")
    tokenizer = load_tokenizer(encoder)
    chosen = random.Random(seed)
    lists = [
        [row for row in dict.fromkeys([*given.lexical, *given.dense]) if row != given.positive]
        for given in candidates.lists
    ]
    usable = [number for number, negatives in enumerate(lists) if len(negatives) >= NEGATIVES]
    if len(usable) < 10:
        raise UsageError(f"{len(usable)} lists have {NEGATIVES} negatives: give a run with more candidates")
    texts = [passage.text for passage in candidates.passages]
    rarity = rarities(tokenizer, chosen.sample(texts, min(len(texts), 8000)))
    table = word_table(encoder.model_file)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "model.onnx"
    _save(file, table, rarity, weights=None)
    session = Session(file, inputs=INPUT_NAMES)
    features = []
    for number in chosen.sample(usable, min(n_lists, len(usable))):
        given = candidates.lists[number]
        rows = [given.positive, *chosen.sample(lists[number], NEGATIVES)]
        pairs = tokenizer.pairs(given.query, [texts[row] for row in rows])
        features.append(np.concatenate([session.run(pair) for pair in pairs]))
    weights = fitted_weights(features, n_steps=STEPS, step_size=STEP_SIZE, decay=DECAY)
    first = float(np.mean([(rows @ weights).argmax() == 0 for rows in features]))
    log.info("fitted", lists=len(features), judged_first=round(first, 3))
    _save(file, table, rarity, weights=weights)
    card = Card(
        name,
        encoder.manifest.licence,
        sources=[f"word table of {encoder.identity}", *encoder.manifest.sources],
        max_tokens=encoder.manifest.max_tokens,
    )
    return write_model(encoder.path, out, card, "cross_encoder", [file.name])


def word_table(model_file: Path) -> NDArray[np.float32]:
    """The encoder's static embeddings, centred and of unit length: float32 (n_words, dimension).

    Raises:
        ModelError: the graph has no known word table.
    """
    graph = onnx.load(str(model_file)).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Gather" and node.input[1] == "input_ids" and len(tensors[node.input[0]].dims) == 2:
            table: NDArray[np.float32] = numpy_helper.to_array(tensors[node.input[0]]).astype(np.float32)
            if node.input[0].endswith("_rows"):  # as `quantize_word_table` stores it
                table *= numpy_helper.to_array(tensors[node.input[0].removesuffix("_rows") + "_scales"])
            table -= table.mean(axis=0)
            lengths = np.linalg.norm(table, axis=1, keepdims=True)
            return np.asarray(table / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)
    raise ModelError(f"model file {model_file} looks up input_ids in no table: name another encoder")


def rarities(tokenizer: TextTokenizer, texts: Sequence[str]) -> NDArray[np.float32]:
    """Per id, the logarithm of its rarity in `texts` (Robertson's idf), at most 1; 0 for special ids."""
    counts: Counter[int] = Counter()
    for sequence in tokenizer.sequences(texts):
        counts.update(set(sequence["input_ids"][0].tolist()))
    found = np.zeros(tokenizer.vocabulary_size)
    found[list(counts)] = list(counts.values())
    rarity = np.log((len(texts) + 1) / (found + 0.5)) / np.log((len(texts) + 1) / 0.5)
    special = tokenizer.sequences([""])[0]["input_ids"][0]
    rarity[[0, *special]] = 0  # padding has the first id
    return np.asarray(np.maximum(rarity, 0), dtype=np.float32)


def _save(
    file: Path, table: NDArray[np.float32], rarity: NDArray[np.float32], *, weights: NDArray[np.float32] | None
) -> None:
    """Writes the graph. Its output is logits, float32 (n_pairs, 1), or the unweighted features if `weights` is None."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
    rows = np.rint(table / scale).astype(np.int8)
    constants: dict[str, NDArray[np.generic]] = {
        "rows": rows,
        "row_lengths": (1 / np.maximum(np.linalg.norm(rows.astype(np.float32), axis=1), 1)).astype(np.float32),
        "rarity": rarity,
        "centres": CENTRES,
        "sharpness": -1 / (2 * WIDTHS**2),
        "zero": np.array([0]),
        "one": np.array([1]),
        "last": np.array([-1]),
        "two": np.array([2]),
        "nearly_none": np.array(1e-10, dtype=np.float32),
        "least": np.array(1e-3, dtype=np.float32),
        **({} if weights is None else {"weights": weights[:, None]}),
    }
    steps = [
        ("Gather", ["rows", "input_ids"], "bytes"),
        ("Cast", ["bytes"], "floats"),
        ("Gather", ["row_lengths", "input_ids"], "lengths"),
        ("Unsqueeze", ["lengths", "last"], "lengths_column"),
        ("Mul", ["floats", "lengths_column"], "embeddings"),
        ("Gather", ["rarity", "input_ids"], "rarities"),
        # The query stands first: as many rows as the longest one has are compared with everything.
        ("Sub", ["attention_mask", "token_type_ids"], "in_query"),
        ("ReduceSum", ["in_query", "one"], "query_lengths"),
        ("ReduceMax", ["query_lengths"], "longest_query"),
        ("Reshape", ["longest_query", "one"], "query_end"),
        ("Slice", ["embeddings", "zero", "query_end", "one"], "query"),
        ("Transpose", ["embeddings"], "columns"),
        ("MatMul", ["query", "columns"], "cosines"),
        ("Cast", ["in_query"], "query_mask"),
        ("Mul", ["rarities", "query_mask"], "all_query_rarities"),
        ("Slice", ["all_query_rarities", "zero", "query_end", "one"], "query_rarities"),
        ("Cast", ["token_type_ids"], "passage_mask"),
        ("Sign", ["rarities"], "is_word"),
        ("Mul", ["is_word", "passage_mask"], "passage_words"),
        ("Unsqueeze", ["cosines", "last"], "cosines_apart"),
        ("Sub", ["cosines_apart", "centres"], "distances"),
        ("Mul", ["distances", "distances"], "squares"),
        ("Mul", ["squares", "sharpness"], "exponents"),
        ("Exp", ["exponents"], "kernels"),
        ("Unsqueeze", ["passage_words", "one"], "passage_row"),
        ("Unsqueeze", ["passage_row", "last"], "passage_column"),
        ("Mul", ["kernels", "passage_column"], "counted"),
        ("ReduceSum", ["counted", "two"], "counts"),
        ("Max", ["counts", "nearly_none"], "some_counts"),
        ("Log", ["some_counts"], "logarithms"),
        ("Unsqueeze", ["query_rarities", "last"], "query_column"),
        ("Mul", ["logarithms", "query_column"], "weighed"),
        ("ReduceSum", ["weighed", "one"], "sums"),
        ("ReduceSum", ["query_column", "one"], "all_rarity"),
        ("Max", ["all_rarity", "least"], "some_rarity"),
        ("Div", ["sums", "some_rarity"], "features"),
    ]
    if weights is not None:
        steps.append(("MatMul", ["features", "weights"], "logits"))
    attributes = {"Cast": {"to": TensorProto.FLOAT}, "Transpose": {"perm": [0, 2, 1]}, "ReduceSum": {"keepdims": 0}}
    nodes = [helper.make_node(kind, given, [made], **attributes.get(kind, {})) for kind, given, made in steps]
    shape = ["pairs", "tokens"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in sorted(INPUT_NAMES)]
    output = helper.make_tensor_value_info(steps[-1][2], TensorProto.FLOAT, ["pairs", "values"])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "kernel_ranker", inputs, [output], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, str(file))


@click.command()
@click.argument("candidates", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--encoder", default="embed-base", show_default=True, help="Whose word table it uses.")
@click.option("--name", default="kernel-ranker", show_default=True, help="The model's name in logs and answers.")
def command(candidates: Path, out: Path, encoder: str, name: str) -> None:
    """Fit a kernel ranker to CANDIDATES, which a run of `neural-bridge train cross-encoder` leaves in its folder."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    folder = fit(resolve(encoder), read_value(candidates, CandidateSet), out, name=name)
    click.echo(f"{folder.identity} in {out}: name it as sidecar.cascade_model")


if __name__ == "__main__":
    command()

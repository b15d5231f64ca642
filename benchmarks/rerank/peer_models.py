"""Other rerankers, timed on request: `scripts/bench rerank` starts this in an environment of theirs.

Reads one line of JSON that describes the task (see `benchmarks.rerank.engines`), then lines `{"run": NAME}`, or with a
`query` and `passages`. Answers each by one line: the names with versions, then the seconds that a run took, or the
passages' scores.

A speed does not depend on what weights say, so without FOLDER, a cross-encoder as sentence-transformers stores it, each
peer runs a model of the same shape with random weights, all peers the same one.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

ONNX_INT8 = "model_qint8_avx512_vnni.onnx"


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")  # libraries print; the answers keep standard output to themselves
    os.dup2(2, 1)
    task = json.loads(sys.stdin.readline())
    engines, score = load(task)
    print(json.dumps({"engines": list(engines)}), file=answers, flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if "query" in question:
            answer = {"scores": score([(question["query"], passage) for passage in question["passages"]]).tolist()}
        else:
            started = time.perf_counter()
            engines[question["run"]]()
            answer = {"seconds": time.perf_counter() - started}
        print(json.dumps(answer), file=answers, flush=True)


def load(task: dict[str, Any]) -> tuple[dict[str, Callable[[], object]], Callable[[Any], Any]]:
    """Name with version → scores all passages once; and what scores any pairs."""
    import torch
    from sentence_transformers import CrossEncoder, export_dynamic_quantized_onnx_model

    torch.set_num_threads(task["threads"])
    model = task["model"] or random_model(Path(task["work"]) / "model", task["shape"], task["tokenizer"])
    pairs = [(task["query"], passage) for passage in task["passages"]]
    by_torch = CrossEncoder(model, device="cpu")
    exported = Path(task["work"]) / "exported"
    by_onnx = CrossEncoder(model, device="cpu", backend="onnx", model_kwargs=session_options(task["threads"]))
    by_onnx.save_pretrained(str(exported))
    export_dynamic_quantized_onnx_model(by_onnx, "avx512_vnni", str(exported))
    given = {"file_name": f"onnx/{ONNX_INT8}", **session_options(task["threads"])}
    by_int8 = CrossEncoder(str(exported), device="cpu", backend="onnx", model_kwargs=given)
    library = f"sentence-transformers {version('sentence-transformers')}"
    engines = {
        f"{library}, torch {version('torch')}": lambda: by_torch.predict(pairs),
        f"{library}, ONNX": lambda: by_onnx.predict(pairs),
        f"{library}, ONNX int8": lambda: by_int8.predict(pairs),
        f"FlashRank {version('flashrank')}, int8": flashrank(exported, task),
    }
    return engines, by_torch.predict


def session_options(threads: int) -> dict[str, Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return {"provider": "CPUExecutionProvider", "session_options": options}


def random_model(folder: Path, shape: dict[str, int], tokenizer_file: str) -> str:
    """A BERT cross-encoder of this shape, saved as sentence-transformers reads it."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(num_labels=1, **shape)).eval().save_pretrained(folder)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=tokenizer_file, model_max_length=256, **names)
    tokenizer.save_pretrained(folder)
    return str(folder)


def flashrank(exported: Path, task: dict[str, Any]) -> Callable[[], object]:
    """FlashRank on the int8 file; it finds a model by its name in a cache folder, and the file by the name's own."""
    import shutil

    from flashrank import Ranker, RerankRequest
    from flashrank.Config import model_file_map

    name = next(iter(model_file_map))
    folder = Path(task["work"]) / name
    shutil.copytree(exported, folder, ignore=shutil.ignore_patterns("onnx"), dirs_exist_ok=True)
    shutil.copyfile(exported / "onnx" / ONNX_INT8, folder / model_file_map[name])
    ranker = Ranker(model_name=name, cache_dir=task["work"], max_length=256)
    request = RerankRequest(query=task["query"], passages=[{"text": passage} for passage in task["passages"]])
    return lambda: ranker.rerank(request)


if __name__ == "__main__":
    main()

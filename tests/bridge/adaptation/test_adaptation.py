"""The steps of an adaptation, on documents in memory and with toy models."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("transformers", reason="training needs the train extra")
pytest.importorskip("bm25s", reason="training needs the train extra")

from bridge.adaptation.adaptation import Adaptation, Choices, ServingModels, Subject
from bridge.adaptation.index_texts import IndexedText
from bridge.adaptation.making import Recipe
from bridge.console import Display, wide_console
from bridge.errors import CheckpointUnusable
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.query_generator import QueryGenerator
from bridge.profile import IndexProfile, ModelReference
from ingest.stages.expansion import QueryFilter
from tests.toys import WORDS, make_toy_cross_encoder, make_toy_encoder, make_toy_query_generator

TEXTS = [" ".join(WORDS[(n * step + step) % len(WORDS)] for step in range(1, 8)) for n in range(30)]
DOCUMENTS = [IndexedText(f"d{n}", [text], text, [text]) for n, text in enumerate(TEXTS)]
HELD_OUT = JudgedQueries("people", {f"q{n}": WORDS[n] for n in range(10)}, {f"q{n}": {f"d{n}": 1} for n in range(10)})


class TextsInMemory:
    """Documents as an index would give them."""

    def sample(self, n_documents: int) -> list[IndexedText]:
        return DOCUMENTS[:n_documents]

    def by_id(self, doc_ids: Sequence[str]) -> list[IndexedText]:
        return [document for document in DOCUMENTS if document.doc_id in doc_ids]


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    reader = make_toy_cross_encoder(tmp_path / "cross-encoder")
    cross_encoder = CrossEncoder.load(reader, threads=1)
    encoder = Encoder.load(make_toy_encoder(tmp_path / "encoder"), threads=1)
    models = ServingModels(
        encoder=encoder,
        cross_encoder=cross_encoder,
        cross_encoder_folder=reader,
        generator=QueryGenerator.load(make_toy_query_generator(tmp_path / "generator"), threads=1),
        keep=QueryFilter(cross_encoder, threshold=-1e9, threads=1),
    )
    name, _, digest = encoder.identity.partition("@")
    profile = IndexProfile(["text"], ModelReference(name, digest), encoder.dimension)
    learnt = JudgedQueries("clicks", {"c": f"{WORDS[12]} {WORDS[13]}"}, {"c": {"d29": 1}})
    texts = TextsInMemory()
    return Subject("shop", profile, texts, models, HELD_OUT, frozenset({"d0"}), learnt)  # type: ignore[arg-type]


def choices(base: Path, **changed: object) -> Choices:
    recipe = Recipe(str(base), None, "mean", "smoke", 1.0, "Apache-2.0")
    return msgspec.structs.replace(Choices(recipe, documents=25, queries_per_passage=2), **changed)


def adaptation(folder: Path, chosen: Choices, subject: Subject) -> Adaptation:
    return Adaptation(folder, chosen, subject, Display(wide_console(stderr=True)))


def test_models_are_made_and_measured_and_nothing_is_done_twice(
    toy_base: Path, subject: Subject, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    first = adaptation(folder, choices(toy_base), subject).verdicts(["encoder", "cross_encoder"], min_gain=0.01)
    assert [[found.stage for found in verdict.differences] for verdict in first] == [["vector", "hybrid"], ["rerank"]]
    for verdict in first:
        assert verdict.helps == verdict.differences[-1].helps(min_gain=0.01)
        assert (Path(verdict.model) / "manifest.json").exists()
    pairs = (folder / "pairs" / "index-shop.jsonl").read_text()
    assert f"{WORDS[12]} {WORDS[13]}" in pairs
    assert TEXTS[0] not in pairs

    made = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    again = adaptation(folder, choices(toy_base), subject).verdicts(["encoder", "cross_encoder"], min_gain=0.01)
    assert again == first
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()} == made


def test_an_adaptation_goes_on_with_the_same_choices_only(toy_base: Path, subject: Subject, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "choices.json").write_bytes(msgspec.json.encode(choices(toy_base, documents=9)))
    with pytest.raises(CheckpointUnusable, match="state-folder"):
        adaptation(folder, choices(toy_base), subject).verdicts(["encoder"], min_gain=0.01)

"""CLIP folders → image encoders, on a randomly initialised model and on one that learns within a minute."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra train is not installed")
pytest.importorskip("transformers", reason="the extra train is not installed")

import torch
from click.testing import CliRunner
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from benchmarks.pictures import train
from benchmarks.pictures.made import HELD_OUT, SCENES, caption, draw, png
from bridge.commands.models import command
from bridge.errors import ModelError
from bridge.models.artifact import read_folder
from bridge.models.encoder import Encoder
from bridge.models.hub import PREPROCESSOR_CONFIGURATION as PREPROCESSOR
from bridge.models.image_encoder import ImageEncoder
from bridge.training import image_export
from bridge.training.image_export import export_image_encoder
from bridge.training.quantization import quantize_folder
from bridge.training.transformers_folder import Card
from tests.hub_mirror import mirror_model
from tests.toys import SPECIAL_TOKENS, WORDS, toy_tokenizer

CARD = Card(name="small", licence="Apache-2.0", max_tokens=16)
TEXTS = ["cat", "the red dress and the blue shoe", "file " * 40]
OPTIONS = ["--kind", "image_encoder", "--name", "small", "--licence", "Apache-2.0", "--max-tokens", "16"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder in the hub's layout, with random weights."""
    torch.manual_seed(1)
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
    ids = {"bos_token_id": SPECIAL_TOKENS.index("[CLS]"), "eos_token_id": SPECIAL_TOKENS.index("[SEP]")}
    config = CLIPConfig(
        text_config={
            **tower,
            **ids,
            "vocab_size": len(SPECIAL_TOKENS) + len(WORDS),
            "max_position_embeddings": 24,
            "pad_token_id": 0,
        },
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=20,
    )
    folder = tmp_path / "source"
    CLIPModel(config).save_pretrained(folder)
    toy_tokenizer().save(str(folder / "tokenizer.json"))
    CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def unit(rows: Any) -> Any:
    return torch.nn.functional.normalize(rows, dim=-1).numpy()


def test_texts_are_embedded_as_torch_does(source: Path, tmp_path: Path) -> None:
    made = export_image_encoder(source, tmp_path / "out", CARD)
    assert (made.manifest.dimension, made.manifest.max_tokens) == (20, 16)
    model, tokenizer = CLIPModel.from_pretrained(source).eval(), toy_tokenizer()
    tokenizer.enable_truncation(16)
    found = Encoder.load(made, threads=1).encode(TEXTS)
    for text, embedding in zip(TEXTS, found, strict=True):
        with torch.inference_mode():
            expected = unit(model.get_text_features(torch.tensor([tokenizer.encode(text).ids])))
        np.testing.assert_allclose(embedding, expected[0], atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (100, 40), (37, 90)])
def test_pictures_are_read_and_embedded_as_transformers_does(
    source: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    made = export_image_encoder(source, tmp_path / "out", CARD)
    chance = np.random.default_rng(3)
    noise = Image.fromarray(chance.integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    encoder = ImageEncoder.load(made, threads=1)
    pixels = encoder.read(png(noise))
    prepared = CLIPImageProcessor.from_pretrained(source)(noise, return_tensors="pt")["pixel_values"]
    # The square is cut before it is scaled, so that its outermost pixels differ.
    assert np.abs(pixels - prepared[0].numpy())[:, 2:-2, 2:-2].mean() < 0.1
    with torch.inference_mode():
        expected = unit(CLIPModel.from_pretrained(source).eval().get_image_features(prepared))
    assert (encoder.encode([pixels]) * expected).sum() > 0.99


def test_int8_towers_agree_with_float_ones_and_commands_make_and_check_them(source: Path, tmp_path: Path) -> None:
    chance = random.Random(1)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, scene in enumerate(chance.sample(SCENES, 20)):
        (pictures / f"{number}.png").write_bytes(png(draw(scene, chance)))
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"query": word, "passage": f"the {word}"}) + "\n" for word in WORDS))
    float32, int8 = str(tmp_path / "float32"), str(tmp_path / "int8")
    like = ["--texts", str(texts), "--pictures", str(pictures)]
    for words in (
        ["export", str(source), float32, *OPTIONS],
        ["quantize", float32, int8, *like],
        ["verify", int8, "--against", float32, *like],
        ["verify", int8, "--against", str(source), *like],
        ["show", int8],
    ):
        done = CliRunner().invoke(command, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
    figures = read_folder(Path(int8)).manifest.figures
    assert figures["cosine_to_reference"] > 0.98
    assert figures["picture_cosine_to_reference"] > 0.98
    one, other = read_folder(Path(float32)), read_folder(Path(int8))
    assert one.digest != other.digest
    with pytest.raises(ModelError, match="--pictures"):
        quantize_folder(one, tmp_path / "none", [("", word) for word in WORDS])


def test_a_model_of_the_hub_is_known_by_its_configuration(source: Path, tmp_path: Path) -> None:
    files = {file.name: file.read_bytes() for file in source.iterdir()}
    mirror_model(tmp_path / "mirror", "someone/clip", files)
    words = ["fetch", "someone/clip", "--mirror", str(tmp_path / "mirror"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(command, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert read_folder(tmp_path / "out").manifest.kind == "image_encoder"


def _other_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["SiglipModel"]}))


def _no_preprocessor(folder: Path) -> None:
    (folder / PREPROCESSOR).unlink()


def _other_side(folder: Path) -> None:
    said = json.loads((folder / PREPROCESSOR).read_text())
    (folder / PREPROCESSOR).write_text(json.dumps(said | {"crop_size": {"height": 24, "width": 24}}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_architecture, r"is of \['SiglipModel'\], an image encoder of CLIPModel"),
        (_no_preprocessor, r"preprocessor_config\.json does not say"),
        (_other_side, "gives pictures of 24 pixels a side"),
    ],
)
def test_a_source_of_another_shape_is_refused(
    source: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    change(source)
    with pytest.raises(ModelError, match=message):
        export_image_encoder(source, tmp_path / "out", CARD)


def test_a_graph_that_disagrees_with_torch_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_export, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(ModelError, match="differs from torch"):
        export_image_encoder(source, tmp_path / "out", CARD)


@pytest.mark.timeout(900)
def test_a_model_that_learns_shapes_and_colours_finds_pictures_that_it_never_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "STEPS", 400)
    train.train(tmp_path / "clip")
    made = export_image_encoder(tmp_path / "clip", tmp_path / "out", CARD)
    texts, pictures, chance = Encoder.load(made, threads=1), ImageEncoder.load(made, threads=1), random.Random(9)
    shown = pictures.encode([pictures.read(png(draw(scene, chance))) for scene in SCENES])
    asked = texts.encode([caption(scene, chance) for scene in HELD_OUT])
    first = [SCENES[place] for place in (asked @ shown.T).argmax(axis=1)]
    assert np.mean([found == scene for found, scene in zip(first, HELD_OUT, strict=True)]) >= 0.9

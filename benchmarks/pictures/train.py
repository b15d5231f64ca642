"""Trains the toy dual encoder: `python -m benchmarks.pictures.train OUT`, in the environment for training.

OUT becomes a folder in the layout of transformers' CLIPModel, of which `neural-bridge models export --kind
image_encoder` makes a model folder. It takes a minute or two on one processor.
"""

import json
import random
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel

from benchmarks.pictures.made import HELD_OUT, SCENES, SIDE, Scene, caption, draw

SEED = 3
STEPS = 1000
BATCH = 96
LEARNING_RATE = 2e-3
MAX_TOKENS = 16
START, END, PADDING, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<pad>", "<unk>"
PICTURES_PER_SCENE = 60
MEAN, DEVIATION = [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]


def tokenizer() -> Tokenizer:
    """A word is a token."""
    chance = random.Random(SEED)
    words = sorted({word for scene in SCENES for _ in range(20) for word in re.findall(r"\w+", caption(scene, chance))})
    ids = {token: number for number, token in enumerate((START, END, PADDING, UNKNOWN, *words))}
    made = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens([START, END, PADDING, UNKNOWN])
    made.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    return made


def configuration(n_words: int) -> CLIPConfig:
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "hidden_act": "gelu"}
    return CLIPConfig(
        text_config={
            **tower,
            "num_hidden_layers": 2,
            "vocab_size": n_words,
            "max_position_embeddings": MAX_TOKENS,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 2,
        },
        vision_config={**tower, "num_hidden_layers": 3, "image_size": SIDE, "patch_size": 8},
        projection_dim=64,
    )


def pixels(picture: Any) -> np.ndarray[Any, Any]:
    """As the model takes a picture, float32 (3, SIDE, SIDE)."""
    values = np.asarray(picture, dtype=np.float32) / 255
    return ((values - np.array(MEAN, dtype=np.float32)) / np.array(DEVIATION, dtype=np.float32)).transpose(2, 0, 1)


def recall(model: CLIPModel, words: Tokenizer, asked: Sequence[Scene]) -> float:
    """The share of captions whose picture is the nearest among one of every scene."""
    chance = random.Random(SEED + 1)
    pictures = torch.tensor(np.stack([pixels(draw(scene, chance)) for scene in SCENES]))
    with torch.inference_mode():
        of_pictures = torch.nn.functional.normalize(model.get_image_features(pictures), dim=-1)
        found = 0
        for scene in asked:
            ids = torch.tensor([words.encode(caption(scene, chance)).ids])
            of_text = torch.nn.functional.normalize(model.get_text_features(ids), dim=-1)
            found += SCENES[int((of_text @ of_pictures.T).argmax())] == scene
    return found / len(asked)


def train(out: Path) -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    chance = random.Random(SEED)
    words = tokenizer()
    words.enable_padding(pad_id=2, pad_token=PADDING)
    seen = [scene for scene in SCENES if scene not in HELD_OUT]
    shown = {scene: np.stack([pixels(draw(scene, chance)) for _ in range(PICTURES_PER_SCENE)]) for scene in seen}
    model = CLIPModel(configuration(words.get_vocab_size())).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=STEPS, pct_start=0.1)
    began = time.monotonic()
    for step in range(STEPS):
        scenes = chance.sample(seen, BATCH)
        texts = words.encode_batch([caption(scene, chance) for scene in scenes])
        pictures = np.stack([shown[scene][chance.randrange(PICTURES_PER_SCENE)] for scene in scenes])
        loss = model(
            input_ids=torch.tensor([text.ids for text in texts]),
            attention_mask=torch.tensor([text.attention_mask for text in texts]),
            pixel_values=torch.tensor(pictures),
            return_loss=True,
        ).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.6)
        if step % 250 == 249:
            words.no_padding()
            figure = recall(model.eval(), words, HELD_OUT)
            words.enable_padding(pad_id=2, pad_token=PADDING)
            model.train()
            print(  # noqa: T201
                f"step {step + 1}, {time.monotonic() - began:.0f} s: loss {loss.item():.3f}, recall@1 of held-out "
                f"captions {figure:.3f}",
                flush=True,
            )
    words.no_padding()
    model.eval().save_pretrained(out)
    words.save(str(out / "tokenizer.json"))
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": SIDE},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN,
        "image_std": DEVIATION,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=1) + "\n")


if __name__ == "__main__":
    train(Path(sys.argv[1]))

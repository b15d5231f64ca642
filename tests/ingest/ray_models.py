"""Toy models whose actors are told by files in a folder what to do: how a test stops them in the middle."""

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ingest.stages.models import Models
from tests.ingest.toys import CountingEncoder, toy_models

HELD = "held"
"""While a file of this name is in the folder, no actor finishes an embedding but its first one."""

_LOOK_EVERY_S = 0.05


class HeldEncoder(CountingEncoder):
    """Notes its process as a file, named by its id; after its first call it waits as long as it is held."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._calls = 0
        (folder / str(os.getpid())).touch()

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "query") -> NDArray[np.float32]:
        self._calls += 1
        while self._calls > 1 and (self._folder / HELD).exists():
            time.sleep(_LOOK_EVERY_S)
        return super().encode(texts, role)


def held_models(folder: Path) -> Models:
    """Models whose encoder heeds `folder`."""
    toys = toy_models()
    return Models(
        HeldEncoder(folder), toys.encoder_reference, toys.token_spans, toys.generator, toys.generator_reference
    )


def opener(folder: Path) -> "partial[Models]":
    """What an actor opens, as it travels."""
    return partial(held_models, folder)


def processes(folder: Path) -> list[int]:
    """The processes that opened models, the latest last."""
    noted = sorted(folder.glob("[0-9]*"), key=lambda file: file.stat().st_mtime_ns)
    return [int(file.name) for file in noted]

"""Sequences shared among threads."""

import threading
import time

import numpy as np
import pytest

from bridge.models.text_model import ComputingThreads
from bridge.models.tokenization import TokenArrays


def _sequences(*lengths: int) -> list[TokenArrays]:
    return [{"input_ids": np.full((1, length), length, dtype=np.int64)} for length in lengths]


def _length(sequence: TokenArrays) -> int:
    return sequence["input_ids"].size


@pytest.mark.parametrize("threads", [1, 3, 20])
def test_results_come_in_the_order_of_the_sequences(threads: int) -> None:
    lengths = (3, 9, 1, 7, 7, 2)
    assert ComputingThreads(threads, name="test").map(_length, _sequences(*lengths)) == list(lengths)
    assert ComputingThreads(threads, name="test").map(_length, []) == []


def test_the_longest_comes_first_and_several_are_computed_at_once() -> None:
    seen: list[int] = []
    both_are_here = threading.Barrier(2, timeout=10)

    def compute(sequence: TokenArrays) -> int:
        seen.append(_length(sequence))
        both_are_here.wait()
        return _length(sequence)

    assert ComputingThreads(2, name="test").map(compute, _sequences(1, 8, 5, 9)) == [1, 8, 5, 9]
    assert set(seen[:2]) == {8, 9}
    assert set(seen[2:]) == {1, 5}


def test_an_error_reaches_the_caller_and_nothing_more_is_computed() -> None:
    computed: list[int] = []

    def compute(sequence: TokenArrays) -> None:
        if _length(sequence) == 50:
            raise ValueError("50 is too long")
        time.sleep(0.02)
        computed.append(_length(sequence))

    shared = ComputingThreads(2, name="test")
    with pytest.raises(ValueError, match="50 is too long"):
        shared.map(compute, _sequences(*range(1, 51)))
    shared.close()
    assert len(computed) <= 1

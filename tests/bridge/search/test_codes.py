import random
import subprocess
import sys
from typing import Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.cluster.dialects import code_bytes, code_of
from bridge.profile import IndexProfile, ModelReference, SparseSettings
from bridge.search.fusion import cosines

PROFILE = IndexProfile(text_fields=["body"], encoder=ModelReference("encoder", "1" * 12), dimension=9, codes="sign")
PLANES = msgspec.structs.replace(PROFILE, codes="planes")
TERMS = msgspec.structs.replace(
    PROFILE, codes="terms", vector_type="none", sparse=SparseSettings(ModelReference("sparse", "2" * 12))
)
NO_EMBEDDING = np.zeros((0, 9), dtype=np.float32)


def test_a_sign_code_has_one_bit_for_each_dimension_of_the_mean_embedding() -> None:
    embeddings = np.array([[0.9, -0.1, 0.2, 0.0, 0, 0, 0, 0, 0.1], [0.1, 0.3, -0.4, 0.0, 0, 0, 0, 0, 0.1]], np.float32)
    assert code_of(embeddings, {}, PROFILE) == bytes([0b11000000, 0b10000000])
    assert code_of(embeddings[:1], {}, PROFILE) == bytes([0b10100000, 0b10000000])


def test_codes_stay_what_they_are_in_indices_that_have_them() -> None:
    """Another pseudo-random plane, or another hash, would make codes that cannot be compared with those."""
    embedding = np.array([[0.5, -0.4, 0.3, -0.2, 0.1, 0.6, -0.7, 0.8, -0.9]], np.float32)
    assert code_of(embedding, {}, PLANES).hex() == "ad4e80"
    assert (
        code_of(NO_EMBEDDING, {"wing": 1.5, "##s": 0.5}, TERMS).hex()
        == "73d9f28f20ce9e939b256a45eebbc1f07f2abe7db8ebd9d1655f8308b099bd4860e82defec9bd39936415de6f898ebc0"
    )


def test_what_has_nothing_to_make_a_code_of_has_none() -> None:
    assert code_of(NO_EMBEDDING, {"wing": 1.0}, PLANES) == b""
    assert code_of(np.ones((1, 9), np.float32), {}, TERMS) == b""


def test_planes_tell_the_cosine_more_exactly_than_signs_alone() -> None:
    vectors = np.random.default_rng(1).normal(size=(60, 384)).astype(np.float32)
    vectors[30:] = vectors[:30] + 0.8 * vectors[30:]
    true = np.clip(np.corrcoef(vectors), 0, None)

    def error(codes: Literal["sign", "planes"]) -> float:
        profile = msgspec.structs.replace(PROFILE, codes=codes)
        return float(np.abs(cosines([code_of(each[None], {}, profile) for each in vectors]) - true).mean())

    assert error("planes") < 0.8 * error("sign")


def test_codes_are_compared_on_the_calling_thread_alone() -> None:
    """Threads of a library that multiplies matrices would spin beside it, and take the cores from all else."""
    program = (
        "import os, time\n"
        "from bridge.search.fusion import cosines\n"
        "codes = [os.urandom(96) for _ in range(50)]\n"
        "cosines(codes)\n"
        "busy = 1.0\n"
        "while busy > 0.001:\n"  # threads that a library starts when it is imported spin for a while
        "    before = time.process_time(); time.sleep(0.05); busy = time.process_time() - before\n"
        "own, all_threads = time.thread_time(), time.process_time()\n"
        "for _ in range(300): cosines(codes)\n"
        "print((time.process_time() - all_threads) / (time.thread_time() - own))\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(finished.stdout) < 1.3


@pytest.mark.parametrize(("shared", "expected"), [(0, 0.0), (20, 0.5), (40, 1.0)])
def test_codes_of_terms_tell_how_much_two_documents_share(shared: int, expected: float) -> None:
    one = {f"term{i}": 1.0 for i in range(40)}
    other = {f"term{i}": 1.0 for i in range(40 - shared, 80 - shared)}
    codes = [code_of(NO_EMBEDDING, terms, TERMS) for terms in (one, other)]
    assert cosines(codes)[0, 1] == pytest.approx(expected, abs=0.15)


@given(st.dictionaries(st.text(min_size=1), st.sampled_from([0.25, 0.5, 1.0, 2.0]), min_size=1))
def test_the_order_of_terms_does_not_matter(terms: dict[str, float]) -> None:
    shuffled = list(terms.items())
    random.Random(7).shuffle(shuffled)
    assert code_of(NO_EMBEDDING, dict(shuffled), TERMS) == code_of(NO_EMBEDDING, terms, TERMS)


@pytest.mark.parametrize("codes", ["sign", "planes"])
@given(dimension=st.integers(1, 70))
def test_a_code_is_as_long_as_its_index_says(codes: Literal["sign", "planes"], dimension: int) -> None:
    profile = msgspec.structs.replace(PROFILE, codes=codes, dimension=dimension)
    assert len(code_of(np.ones((1, dimension), np.float32), {}, profile)) == code_bytes(profile)


def test_a_long_embedding_has_no_more_planes_than_it_needs() -> None:
    profile = msgspec.structs.replace(PLANES, dimension=1600)
    assert len(code_of(np.ones((1, 1600), np.float32), {}, profile)) == code_bytes(profile) == (1600 + 1024) // 8


def test_a_code_of_terms_is_as_long_as_its_index_says() -> None:
    assert len(code_of(NO_EMBEDDING, {"wing": 1.0}, TERMS)) == code_bytes(TERMS)

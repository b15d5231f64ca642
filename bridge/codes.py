"""Codes of documents: bits that tell how near two documents are, for a hundredth of the bytes of their embeddings.

Each bit says on which side of a plane a vector lies. Two vectors agree in as many bits as the angle between them is
small (Charikar 2002, "Similarity estimation techniques from rounding algorithms", https://doi.org/10.1145/509907.509965).
"""

import math
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b, shake_256

import numpy as np
from numpy.typing import NDArray

from bridge.profile import IndexProfile
from bridge.records import Terms

_TERM_BYTES = 48
"""Of the code of weighted terms: as many bits as the signs of an embedding with 384 dimensions."""

_MOST_PLANES = 1024
"""Beside the signs of the components: a longer embedding has enough of those."""

_PLANES = b"planes"
"""Of this text's hash the pseudo-random planes are made. Another text would make codes that no index has."""


def code_of(embeddings: NDArray[np.float32], terms: Terms, profile: IndexProfile) -> bytes:
    """The code of a document from its embeddings, float32 (n, dimension), or from its terms, as its index has codes
    (`bridge.profile.Codes`); empty if it has none of what the code is made of."""
    if profile.codes == "terms":
        sides = [weight * _plane_sides(term) for term, weight in terms.items()]
        return _signs(np.sum(sides, axis=0)) if sides else b""
    if not len(embeddings):
        return b""
    mean = embeddings.mean(axis=0)
    if profile.codes == "sign":
        return _signs(mean)
    # Not as a product of matrices: see `cosines`.
    return _signs(np.concatenate([mean, np.einsum("i,ij->j", mean, _planes(len(mean)))]))


def code_bytes(profile: IndexProfile) -> int:
    """The length of each code of an index."""
    match profile.codes:
        case "terms":
            return _TERM_BYTES
        case "planes":
            return -(-(profile.dimension + min(profile.dimension, _MOST_PLANES)) // 8)
        case _:
            return -(-profile.dimension // 8)


def cosines(codes: Sequence[bytes]) -> NDArray[np.float64]:
    """float64 (n, n): the estimated cosine of each two vectors from their codes, all of one length; 0 where it is
    negative."""
    packed = np.frombuffer(b"".join(codes), dtype=np.uint8).reshape(len(codes), -1)
    # Bits are counted, because a product of matrices wakes threads of the library that multiplies, which then spin:
    # they took a proxy's cores for ten times as long as all the rest of a search.
    differing = np.array([np.bitwise_count(packed ^ code).sum(axis=1, dtype=np.int64) for code in packed])
    angles = np.pi * differing / (8 * packed.shape[1])
    cosines: NDArray[np.float64] = np.clip(np.cos(angles), 0.0, None)
    return cosines


def _signs(values: NDArray[np.float32]) -> bytes:
    """One bit for each value, 1 if it is above zero; the last byte ends with zeros."""
    return np.packbits(values > 0).tobytes()


@cache
def _planes(dimension: int) -> NDArray[np.float32]:
    """float32 (dimension, n_planes): pseudo-random planes, the same on every machine. Those at right angles to each
    other say more than independent ones (Ji et al. 2012, "Super-bit locality-sensitive hashing")."""
    shape = (dimension, min(dimension, _MOST_PLANES))
    sides = _sides(shake_256(_PLANES).digest(-(-math.prod(shape) // 8)))
    rotation, scale = np.linalg.qr(sides[: math.prod(shape)].reshape(shape).astype(np.float64))
    # Which way an axis points is left open by the decomposition, and libraries differ.
    planes: NDArray[np.float32] = (rotation * np.sign(np.diagonal(scale))).astype(np.float32)
    return planes


def _plane_sides(term: str) -> NDArray[np.float32]:
    """float32 (n_bits,): on which side of each plane a term's own axis lies, 1 or -1."""
    return _sides(blake2b(term.encode(), digest_size=_TERM_BYTES).digest())


def _sides(digest: bytes) -> NDArray[np.float32]:
    return np.unpackbits(np.frombuffer(digest, dtype=np.uint8)).astype(np.float32) * 2 - 1

"""Nearly the same picture twice: found by a perceptual hash."""

import numpy as np
from PIL import Image

from .files import progress
from .sources import Images

BITS = 64
# Bits that may differ. Measured on 1,240 photographs of Caltech-101: of 384,000 pairs of different
# files none differs in 8 or fewer, 2 in 10; of copies, 99 % differ in at most 4 where they were
# compressed as JPEG of quality 40, 2 where resized, 90 % in at most 6 where made 30 % brighter.
NEAR = 6


def hashes(images: Images) -> np.ndarray:
    """The perceptual hash of every image uint8 (N, 3, S, S), bool (N, 64).

    By ImageHash (Buchner): the picture is made grey and small, and the signs of its lowest cosine
    coefficients around their median are the bits. A copy that was resized, compressed again or
    made brighter keeps nearly all of them; a mirrored or strongly cropped one does not.
    """
    import imagehash

    bits = np.empty((len(images), BITS), bool)
    for i in progress(range(len(images)), desc="comparing images", unit=" images"):
        bits[i] = imagehash.phash(Image.fromarray(images[i].transpose(1, 2, 0))).hash.ravel()
    return bits


def near_duplicates(
    first: np.ndarray, second: np.ndarray, near: int = NEAR, chunk: int = 250
) -> list[tuple[int, int, int]]:
    """For every row of `first` the nearest row of `second`, where at most `near` bits differ.

    `first` is (N, 64) and `second` (M, 64), see `hashes`. Returns (row of `first`, row of
    `second`, bits that differ), nearest pairs first; `chunk` rows of `first` are compared at once.

    >>> bits = np.zeros((2, 64), bool)
    >>> bits[1, :20] = True
    >>> near_duplicates(bits[:1], bits)
    [(0, 0, 0)]
    """
    signs = 2 * second.astype(np.float32) - 1
    found: list[tuple[int, int, int]] = []
    for start in range(0, len(first), chunk):
        some = 2 * first[start : start + chunk].astype(np.float32) - 1
        same = some @ signs.T  # (chunk, M): bits that are equal less those that differ
        columns = same.argmax(1) if len(second) else np.empty(0, int)
        for row, column in enumerate(columns.tolist()):
            differ = round((BITS - float(same[row, column])) / 2)
            if differ <= near:
                found.append((start + row, column, differ))
    return sorted(found, key=lambda pair: pair[2])

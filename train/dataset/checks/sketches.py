"""Near duplicates, streamed: MinHash sketches whose bands lie on disk.

Owns shingles, boilerplate, sketches and the band files. A text is the set of its runs of three words; what
more than a tenth of the texts share (a fixed instruction, a system prompt) is boilerplate and does not
count. Two texts are near duplicates when the estimated share of common shingles is at least `SIMILAR`.
Memory: one batch while writing, one band (8 bytes a row) while reading; disk: 420 bytes a row.
With 21 bands of 6 rows a pair of similarity 0.7 is found with probability 0.93, of 0.8 with 0.998.
"""

from __future__ import annotations

import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

BANDS, BAND_ROWS = 21, 6
SIMILAR = 0.7
_SEED = 20_261_122
_BATCH = 1024
_LEAST_SHINGLES = 4
_COMMON_SHARE, _COMMON_TEXTS = 0.1, 10
_WORD = re.compile(r"\w+")
_LONG_WORD = 24
_SPREAD = tuple(np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))
_ROUNDS = 8
_PAIRS = 1 << 16

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]


class Sketches:
    """The sketches of a growing list of texts; a context manager that keeps them in a temporary folder."""

    def __init__(self, common: Hashes) -> None:
        self._stack = ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="wardrobe-data-")))
        self._bands = [
            self._stack.enter_context((folder / f"band-{band}").open("w+b")) for band in range(BANDS)
        ]
        self._signatures = self._stack.enter_context((folder / "signatures").open("w+b"))
        self._common = common
        self._batch: list[str] = []
        self._comparable: list[NDArray[np.bool_]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, text: str) -> None:
        """Append a text."""
        self._batch.append(text)
        if len(self._batch) == _BATCH:
            self._flush()

    def comparable(self) -> NDArray[np.bool_]:
        """Return which texts are long enough, beside boilerplate, to be compared at all."""
        self._flush()
        return np.concatenate(self._comparable) if self._comparable else np.zeros(0, dtype=bool)

    def similar_pairs(self, band: int, rows: Indices) -> Iterator[tuple[Indices, Indices]]:
        """Yield arrays of pairs (earlier, later) among `rows` that `band` (0 … 20) shows to be alike.

        A row may come more than once, with different partners.
        """
        self._flush()
        self._bands[band].seek(0)
        hashes = np.fromfile(self._bands[band], dtype=np.uint64)[rows]
        order = np.argsort(hashes, kind="stable")
        yield from self._verified(rows[order], hashes[order])

    def _verified(self, rows: Indices, hashes: Hashes) -> Iterator[tuple[Indices, Indices]]:
        # In a run of equal hashes all are compared with the first; those unlike it, with the next, ….
        for _ in range(_ROUNDS):
            starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
            lengths = np.diff(np.r_[starts, hashes.size])
            first = np.repeat(starts, lengths)
            others = np.flatnonzero(first != np.arange(hashes.size))
            if not others.size:
                return
            alike = self._alike(rows[first[others]], rows[others])
            yield rows[first[others]][alike], rows[others][alike]
            rows, hashes = rows[others][~alike], hashes[others][~alike]
            if not rows.size:
                return

    def _alike(self, left: Indices, right: Indices) -> NDArray[np.bool_]:
        found = np.empty(left.size, dtype=bool)
        stored: Any = np.memmap(self._signatures, dtype=np.uint16, mode="r").reshape(-1, BANDS * BAND_ROWS)
        for start in range(0, left.size, _PAIRS):
            part = slice(start, start + _PAIRS)
            found[part] = (stored[left[part]] == stored[right[part]]).mean(axis=1) >= SIMILAR
        return found

    def _flush(self) -> None:
        if self._batch:
            shingles, sizes = shingle(self._batch)
            kept = ~_contains(self._common, shingles)
            owners = np.repeat(np.arange(sizes.size), sizes)[kept]
            self._write(shingles[kept], np.bincount(owners, minlength=sizes.size))
            self._batch.clear()
        for file in (*self._bands, self._signatures):
            file.flush()

    def _write(self, shingles: Hashes, sizes: Indices) -> None:
        signatures = _signatures(shingles, sizes)
        signatures.astype(np.uint16).tofile(self._signatures)
        for number, band in enumerate(self._bands):
            part = signatures[:, number * BAND_ROWS : (number + 1) * BAND_ROWS].astype(np.uint64)
            mixed = part[:, 0]
            for column in range(1, BAND_ROWS):
                mixed = (mixed ^ (mixed >> np.uint64(29))) * _SPREAD[0] + part[:, column] * _SPREAD[1]
            mixed.tofile(band)
        self._comparable.append(sizes >= _LEAST_SHINGLES)


def shingle(texts: Sequence[str]) -> tuple[Hashes, Indices]:
    """Return the hashes of all runs of three words of `texts`, one after the other, and how many each has."""
    words: list[int] = []
    counts = np.empty(len(texts), dtype=np.int64)
    for index, text in enumerate(texts):
        before = len(words)
        words.extend(map(zlib.crc32, _words(text)))
        counts[index] = len(words) - before
    if len(words) < 3:
        return np.zeros(0, dtype=np.uint64), np.zeros(len(texts), dtype=np.int64)
    flat = np.array(words, dtype=np.uint64)
    runs = flat[:-2] * _SPREAD[0] + flat[1:-1] * _SPREAD[1] + flat[2:] * _SPREAD[2]
    owners = np.repeat(np.arange(len(texts)), counts)
    inside = owners[:-2] == owners[2:]
    return runs[inside] ^ (runs[inside] >> np.uint64(32)), np.bincount(
        owners[:-2][inside], minlength=len(texts)
    )


def common_shingles(texts: Iterable[str]) -> Hashes:
    """Return the sorted hashes of the shingles that more than a tenth of the distinct `texts` share."""
    distinct = sorted(set(texts))
    shingles, sizes = shingle(distinct)
    owners = np.repeat(np.arange(sizes.size, dtype=np.uint64), sizes)
    once = np.unique(np.stack([shingles, owners]), axis=1)[0] if shingles.size else shingles
    values, counts = np.unique(once, return_counts=True)
    return values[counts > max(_COMMON_TEXTS, _COMMON_SHARE * len(distinct))]


def _words(text: str) -> Iterator[bytes]:
    words = _WORD.findall(text.lower())
    if any(len(word) > _LONG_WORD for word in words):
        # Scripts without spaces: their characters are the words.
        words = [part for word in words for part in (word if len(word) > _LONG_WORD else (word,))]
    return (word.encode("utf-8", "replace") for word in words)


def _signatures(shingles: Hashes, sizes: Indices) -> NDArray[np.uint32]:
    from rensa import RMinHash

    offsets = [0, *np.cumsum(sizes).tolist()]
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles, offsets, BANDS * BAND_ROWS, _SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32)


def _contains(sorted_hashes: Hashes, hashes: Hashes) -> NDArray[np.bool_]:
    if not sorted_hashes.size:
        return np.zeros(hashes.size, dtype=bool)
    at = np.minimum(np.searchsorted(sorted_hashes, hashes), sorted_hashes.size - 1)
    found: NDArray[np.bool_] = sorted_hashes[at] == hashes
    return found

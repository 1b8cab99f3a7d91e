"""A file put together from pieces of another, so that a decoder is given what makes pixels and nothing else."""

from __future__ import annotations

import bisect
import io
import itertools
from collections.abc import Sequence
from typing import BinaryIO, TypeAlias, cast

Piece: TypeAlias = "bytes | tuple[int, int]"
"""Bytes as they are, or offset and length of what is copied from the other file."""


class _Pieces(io.RawIOBase):
    def __init__(self, file: BinaryIO, pieces: Sequence[Piece]) -> None:
        self._file = file
        self._pieces = [piece for piece in pieces if (len(piece) if isinstance(piece, bytes) else piece[1])]
        sizes = (len(piece) if isinstance(piece, bytes) else piece[1] for piece in self._pieces)
        self._starts = [0, *itertools.accumulate(sizes)]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._starts[-1]}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        index = bisect.bisect_right(self._starts, self._at) - 1
        if index >= len(self._pieces):
            return 0
        piece, skipped = self._pieces[index], self._at - self._starts[index]
        size = min(len(buffer), self._starts[index + 1] - self._at)
        if isinstance(piece, bytes):
            data = piece[skipped : skipped + size]
        else:
            self._file.seek(piece[0] + skipped)
            data = self._file.read(size)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def joined(file: BinaryIO, pieces: Sequence[Piece]) -> BinaryIO:
    """Build a read-only, seekable file of `pieces`; it copies nothing and read from `file` when it is read."""
    return cast(BinaryIO, io.BufferedReader(_Pieces(file, pieces)))

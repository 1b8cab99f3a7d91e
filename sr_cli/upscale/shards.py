"""One batch split between N jobs that do not talk to each other: `--shard I/N`.

An input belongs to the shard that the hash of its relative name says, whatever the order of the listing, the machine,
or the other inputs are: together N jobs do each input once.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from dataclasses import dataclass

from sr_cli.errors import UsageError

MOST = 1_000_000


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`."""

    index: int  #: From 1.
    count: int  #: How many parts there are.

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `2/8`. Raises UsageError."""
        match = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text.strip())
        shard = cls(int(match[1]), int(match[2])) if match else None
        if shard is None or not 1 <= shard.index <= shard.count <= MOST:
            raise UsageError(f"--shard is I/N with I from 1 to N, such as 1/8, not {text!r}")
        return shard

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def file_name(self) -> str:
        """`2-of-8`, for names of files."""
        return f"{self.index}-of-{self.count}"

    def has(self, name: str) -> bool:
        """Return whether the input of this relative name is one of this shard's."""
        return shard_of(name, self.count) == self.index


def shard_of(name: str, count: int) -> int:
    """Return which of `count` shards, from 1, the input of this relative name (`a/b.jpg`) belongs to."""
    # Some systems decompose accents in names; the same file is in the same shard there.
    plain = os.fsencode(unicodedata.normalize("NFC", name).replace(os.sep, "/"))
    return int.from_bytes(hashlib.sha256(plain).digest()[:8], "big") % count + 1

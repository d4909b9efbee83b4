"""Derive every identifier of a world from its seed, without a table."""

from __future__ import annotations

import re
from hashlib import blake2b

_INDEX_BYTES = 8
_MAC_BYTES = 12


class SidCodec:
    """Turn an index into a SID and back. Even a world of ten million needs no memory.

    A SID is the prefix, 24 hex digits of a keyed hash of the index, and the index masked with that
    hash. Decoding unmasks the index and hashes again, so a made-up SID is refused.
    """

    def __init__(self, prefix: str, seed: int, size: int) -> None:
        """Key the hash with prefix and seed. Other worlds do not know these SIDs."""
        self.prefix = prefix
        self.size = size
        self._pattern = re.compile(rf"{prefix}[0-9a-f]{{32}}")
        self._hash = blake2b(key=f"{prefix}:{seed}".encode(), digest_size=_MAC_BYTES)

    def encode(self, index: int) -> str:
        """Return the SID of an index: the prefix and 32 lower-case hex digits."""
        keyed = self._hash.copy()
        keyed.update(index.to_bytes(_INDEX_BYTES, "big"))
        mac = keyed.digest()
        masked = index ^ int.from_bytes(mac[:4], "big")
        return f"{self.prefix}{mac.hex()}{masked:08x}"

    def decode(self, sid: str) -> int | None:
        """Return a SID's index, or None unless it is exactly one of this world's."""
        if self._pattern.fullmatch(sid) is None:
            return None
        index = int(sid[26:], 16) ^ int(sid[2:10], 16)
        return index if index < self.size and self.encode(index) == sid else None


def derive(purpose: str, seed: int) -> str:
    """Return 32 hex digits for a purpose: the world's fixed SIDs and made-up credentials."""
    return blake2b(f"{purpose}:{seed}".encode(), digest_size=16).hexdigest()

"""Keys: drawn at random, shown once, kept as hashes, and compared in constant time."""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final

PREFIX: Final = "rheostat-"
_RANDOM_BYTES: Final = 32
_OURS: Final = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Key:
    """A key's name and hash, its envelope's name, whose it is, and until when it holds.

    A key has 256 random bits, so that its plain SHA-256 cannot be turned back; a slow hash is for what people choose.
    """

    name: str
    sha256: str
    envelope: str
    caller: str
    expires: datetime | None = None
    admin: bool = False

    def is_that_of(self, digest: str) -> bool:
        return hmac.compare_digest(self.sha256, digest)

    def holds_at(self, moment: datetime) -> bool:
        return self.expires is None or moment < self.expires


def new_key() -> str:
    """A key that nobody has had before."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def is_key(text: str) -> bool:
    """Whether it looks like a key that was made here."""
    return bool(_OURS.fullmatch(text))


def digest_of(key: str) -> str:
    """SHA-256 of a key's UTF-8, in hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()

"""Who may call, and the envelope of each.

1. `schema`   the policy file, as YAML says it
2. `file`     reads and checks it whole, with line numbers: read it first
3. `book`     what it means: from a request's credentials to a Caller
4. `keys`     keys are drawn at random, shown once, and kept as hashes
5. `tokens`   signed tokens of an OpenID Connect issuer, in the place of keys
6. `shelf`    the book in force, and how another one takes its place
7. `edit`     the file as `rheostat keys` changes it; `cli` is that command
"""

from dataclasses import dataclass, field
from typing import Final

from rheostat_server.policy import Policy

ANONYMOUS: Final = "anonymous"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what holds for it. An `admin` may have the policy file read anew.

    Rates, turns and the audit log go by `name`. `key` is the name of the key that it showed, of which it may have two.
    """

    name: str = ANONYMOUS
    policy: Policy = field(default_factory=Policy)
    admin: bool = False
    key: str | None = None

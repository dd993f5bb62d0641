"""Where the upstream server is, and the HTTP client that speaks to it."""

from dataclasses import dataclass
from typing import Final

import httpx
from pydantic import SecretStr

from rheostat_server.errors import CannotStart

CONNECT_SECONDS: Final = 5.0
WRITE_SECONDS: Final = 30.0
# Shorter than the 5 s after which uvicorn, and so vLLM, closes an idle connection: a request must not meet that close.
KEEPALIVE_SECONDS: Final = 3.0
IDLE_CONNECTIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Upstream:
    """An OpenAI-compatible server.

    `url` is its base URL with or without `/v1`; another path is taken as it is. `timeout` is the seconds of silence
    after which a request has failed.

    Raises:
        CannotStart: `url` is no plain HTTP URL.
    """

    url: str
    api_key: SecretStr | None = None
    timeout: float = 600.0

    def __post_init__(self) -> None:
        parsed = _parsed(self.url)
        if parsed is None or parsed.scheme not in ("http", "https") or not parsed.host:
            raise CannotStart(f"upstream is {self.url!r}; it must be a URL like http://127.0.0.1:8001/v1")
        if parsed.userinfo or parsed.query or parsed.fragment:
            raise CannotStart(
                "upstream holds a password, a query or a fragment; give the base URL alone, and the key as "
                "RHEOSTAT_UPSTREAM_API_KEY"
            )

    @property
    def api(self) -> str:
        """The URL under which `chat/completions` and `models` are."""
        base = self.url.rstrip("/")
        return base if httpx.URL(base).path.strip("/") else f"{base}/v1"

    @property
    def health(self) -> str | None:
        """Where a server of vLLM's kind says whether its engine lives; None where the URL follows other customs."""
        return self._beside_api("health")

    @property
    def metrics(self) -> str | None:
        """Where a server of vLLM's kind shows its metrics."""
        return self._beside_api("metrics")

    def _beside_api(self, path: str) -> str | None:
        return f"{self.api.removesuffix('/v1')}/{path}" if self.api.endswith("/v1") else None

    def client(self) -> httpx.AsyncClient:
        """A client for one event loop; it binds to the loop of its first request."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "rheostat"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key.get_secret_value()}"
        return httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(self.timeout, connect=CONNECT_SECONDS, write=WRITE_SECONDS, pool=CONNECT_SECONDS),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=IDLE_CONNECTIONS, keepalive_expiry=KEEPALIVE_SECONDS
            ),
        )

    def without_key(self, text: str) -> str:
        """`text` as it may be shown: some servers repeat the key that they refuse."""
        key = self.api_key.get_secret_value() if self.api_key else ""
        return text.replace(key, "***") if key else text


def _parsed(url: str) -> httpx.URL | None:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL:
        return None

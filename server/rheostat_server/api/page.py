"""`GET /`: the playground, a page to try the dials on, and its files under `/playground/`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rheostat_server.api.runtime import runtime_of
from rheostat_server.errors import NotFound

FOLDER: Final = Path(__file__).parents[1] / "playground"
PAGE: Final = "index.html"
MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""The page's own files alone; the last two have the browser refuse any text that is to become HTML or code."""
GUARDS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
READING: Final = ["GET", "HEAD"]
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page. Browsers keep it, and ask by `etag` each time whether it is still the one."""

    content: bytes
    media_type: str

    @property
    def etag(self) -> str:
        return f'"{sha256(self.content).hexdigest()[:32]}"'

    def response(self, known: str | None) -> Response:
        """304 without the content where `known`, the request's `If-None-Match`, holds its tag."""
        headers = {**GUARDS, "Cache-Control": "no-cache", "ETag": self.etag}
        if known and self.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


@router.api_route("/", methods=READING, response_model=None)
async def page(request: Request) -> Response:
    """The page itself, which needs no key; what it asks of the API does."""
    return _served(request, PAGE)


@router.api_route("/playground/{name}", methods=READING, response_model=None)
async def page_file(request: Request) -> Response:
    """A file that the page loads."""
    name = request.path_params["name"]
    return _served(request, name if name != PAGE else "")


def _served(request: Request, name: str) -> Response:
    """Raises NotFound where the operator has turned the page off, or for a file that it has not."""
    file = page_files().get(name)
    if file is None or not runtime_of(request).settings.playground:
        raise NotFound(f"{request.method} {request.url.path} is not served here; see GET /openapi.json")
    return file.response(request.headers.get("if-none-match"))


@cache
def page_files() -> Mapping[str, PageFile]:
    """All of them by name, read once; a request can name no other."""
    paths = [path for path in FOLDER.iterdir() if path.suffix in MEDIA_TYPES]
    return {path.name: PageFile(path.read_bytes(), MEDIA_TYPES[path.suffix]) for path in paths}

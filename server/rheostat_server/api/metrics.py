"""`GET /metrics`: Prometheus, where the engine's own server does not already serve it."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import PlainTextResponse, Response

router = APIRouter()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics() -> Response:
    """All metrics of this process in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

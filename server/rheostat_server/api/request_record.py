"""How a route, or the handler of an error, reaches its request's Record."""

from typing import Final

from starlette.requests import Request

from rheostat_server.api.request_id import request_id_of
from rheostat_server.record import Record

RECORD: Final = "rheostat_record"
SPAN: Final = "rheostat_span"


def record_of(request: Request) -> Record:
    """The request's record; one that nobody reads, where the route is not recorded."""
    known = request.scope.get(RECORD)
    return known if isinstance(known, Record) else Record(request_id_of(request.scope), request.url.path)

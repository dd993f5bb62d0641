"""A judge on another server: the Scorer that asks it over HTTP. `remote_apis.py` says what it is asked."""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Final

import httpx
import orjson
from pydantic import SecretStr

from rheostat_server.contract.dials import DIAL_NAMES
from rheostat_server.engines.remote import Upstream
from rheostat_server.engines.remote.answers import read_json
from rheostat_server.engines.remote.refusals import Refusal, network_errors_as_ours
from rheostat_server.errors import EngineFailed, EngineUnavailable, ScorerUnavailable
from rheostat_server.scorers import UNJUDGED, Dialogue, ScorerCard, Scores
from rheostat_server.scorers.guard_formats import lowest
from rheostat_server.scorers.line import Line
from rheostat_server.scorers.logprobs import NotAnAnswer
from rheostat_server.scorers.remote_apis import Api, apis_of
from rheostat_server.scorers.spec.common import ScorersError
from rheostat_server.scorers.spec.remote import AnyRemoteSpec, RemoteGuardSpec

RETRY_SECONDS: Final = 0.2
"""The pause before the one retry."""
_BROKEN: Final = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
_NO_PART_OF_DIGEST: Final = frozenset(
    {"name", "weight", "key_env", "max_batch", "max_queue", "deadline", "connections"}
)


class Remote:
    """Asks in parts of as many dialogues as an API takes at once; what cannot be judged is not sent."""

    def __init__(self, spec: AnyRemoteSpec, server: Upstream) -> None:
        self._spec = spec
        self._card = ScorerCard(spec.name or spec.model, spec.kind, _digest(spec), spec.judged)
        self._apis = apis_of(spec, server)
        self._client = server.client()
        self._line = Line(self._card, spec.limits, at_once=spec.connections)

    @property
    def card(self) -> ScorerCard:
        return self._card

    async def score(self, dialogues: Sequence[Dialogue]) -> list[Scores]:
        parts = [(api, places) for api in self._apis for places in _parts(api, dialogues)]
        told = await self._line.all_of([partial(self._ask, api, [dialogues[i] for i in some]) for api, some in parts])
        judged: list[list[tuple[Api, Scores]]] = [[] for _ in dialogues]
        for (api, some), found in zip(parts, told, strict=True):
            for place, one in zip(some, found, strict=True):
                judged[place].append((api, one))
        scores = [_joined(one) for one in judged]
        self._line.count(scores)
        return scores

    async def close(self) -> None:
        self._line.close()
        await self._client.aclose()

    async def _ask(self, api: Api, dialogues: Sequence[Dialogue]) -> list[Scores]:
        """The server's scores; dialogues that are too long for it are found by asking for half of them at a time."""
        try:
            response = await self._answer(api.url, orjson.dumps(api.body(dialogues)))
            if response.status_code == 200:
                return api.read(read_json(response), len(dialogues))
        except NotAnAnswer as exc:
            raise ScorerUnavailable(f"scorer {self._card.name!r}: {exc}") from exc
        except (EngineUnavailable, EngineFailed) as exc:
            raise ScorerUnavailable(f"scorer {self._card.name!r}: {exc.logged}") from exc
        if not Refusal.read(response.content).is_overflow:
            raise self._refused(response.status_code)
        if len(dialogues) == 1:
            return [UNJUDGED]
        half = len(dialogues) // 2
        return [*await self._ask(api, dialogues[:half]), *await self._ask(api, dialogues[half:])]

    async def _answer(self, url: str, body: bytes) -> httpx.Response:
        """One retry, where the connection broke or the server is unavailable. The call's deadline bounds both."""
        with network_errors_as_ours():
            try:
                response = await self._post(url, body)
                if response.status_code != 503:
                    return response
            except _BROKEN:
                pass
            await asyncio.sleep(RETRY_SECONDS)
            return await self._post(url, body)

    async def _post(self, url: str, body: bytes) -> httpx.Response:
        return await self._client.post(url, content=body, headers={"content-type": "application/json"})

    def _refused(self, status: int) -> ScorerUnavailable:
        """What the server says is left out: it may quote what people wrote, or repeat the key that it refuses."""
        key = self._spec.key_env
        hint = {
            401: f"; the environment variable {key} holds its key" if key else "; key_env must name its key's variable",
            404: f"; is it the {self._spec.api} API of a server that has the model {self._spec.model!r}?",
        }.get(status, "")
        return ScorerUnavailable(f"scorer {self._card.name!r}: the server answered with status {status}{hint}")


def build_remote(spec: AnyRemoteSpec) -> Remote:
    """The scorer of a spec; nothing is asked of the server yet.

    Raises:
        ScorersError: the environment variable of the key is not set, or holds what no HTTP header can.
    """
    return Remote(spec, Upstream(spec.url, _key(spec.key_env), timeout=spec.deadline))


def _key(variable: str | None) -> SecretStr | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ScorersError(
            f"key_env is {variable}, an environment variable that is not set or holds no plain line of ASCII; set it "
            "to the server's key"
        )
    return SecretStr(key)


def _digest(spec: AnyRemoteSpec) -> str:
    """Of what is known of a judge elsewhere: URL, model and how it is asked. Its weights are not among it."""
    facts = spec.model_dump(exclude=set(_NO_PART_OF_DIGEST))
    if isinstance(spec, RemoteGuardSpec):
        facts["format"] = asdict(spec.guard_format())
    return f"sha256:{hashlib.sha256(orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)).hexdigest()}"


def _parts(api: Api, dialogues: Sequence[Dialogue]) -> list[list[int]]:
    """The places of the dialogues of each request."""
    places = [place for place, dialogue in enumerate(dialogues) if api.judgeable(dialogue)]
    return [places[at : at + api.most] for at in range(0, len(places), api.most)]


def _joined(told: Sequence[tuple[Api, Scores]]) -> Scores:
    """One dialogue's scores by all requests that it needed.

    Several requests tell of one dial where a guard judges by several criteria.
    """
    levels = {dial: lowest([one.level(dial) for api, one in told if dial in api.dials]) for dial in DIAL_NAMES}
    return Scores(**levels)

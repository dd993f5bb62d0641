"""What the routes answer with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rheostat.errors import APIError, api_error
from rheostat.receipt import Receipt
from rheostat.reply import Reply, Scores, Usage


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a conversation. `content` is the first choice's text; `raw` has whatever else the server said.

    `content` is None where the model only called tools.
    """

    content: str | None
    finish_reason: str | None
    model: str
    usage: Usage | None
    receipt: Receipt
    request_id: str | None
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, reply: Reply) -> "Answer":
        data = reply.data
        first = data["choices"][0]
        return cls(
            content=first["message"].get("content"),
            finish_reason=first.get("finish_reason"),
            model=data["model"],
            usage=Usage.of(data.get("usage")),
            receipt=Receipt.of(data["control"]),
            request_id=reply.request_id,
            raw=data,
        )

    @property
    def message(self) -> dict[str, Any]:
        """As it goes into a conversation."""
        return dict(self.raw["choices"][0]["message"])


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request would do. `receipt` has the parts that are known beforehand."""

    receipt: Receipt
    engine: str
    engine_request: Mapping[str, Any]

    @classmethod
    def of(cls, reply: Reply) -> "Plan":
        return cls(Receipt.of(reply.data), reply.data["engine"], reply.data["engine_request"])


@dataclass(frozen=True, slots=True)
class Scorer:
    """A model that judges answers, known by its digest."""

    name: str
    kind: str
    digest: str
    dials: Sequence[str]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the server's scorers say of an answer; `left_out` names those that a level did without."""

    scores: Scores
    scorers: Sequence[Scorer]
    left_out: Sequence[str]
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, reply: Reply) -> "Judgement":
        data = reply.data
        return cls(
            scores=Scores(data["scores"]["safety"], data["scores"]["helpfulness"]),
            scorers=tuple(
                Scorer(each["name"], each["kind"], each["digest"], tuple(each["dials"])) for each in data["scorers"]
            ),
            left_out=tuple(data.get("left_out", ())),
            raw=data,
        )


@dataclass(frozen=True, slots=True)
class Point:
    """A setting of the dials, and the answer there or the error in its place. A dial that was not swept is None."""

    index: int
    safety: float | None
    helpfulness: float | None
    content: str | None
    finish_reason: str | None
    scores: Scores | None
    usage: Usage | None
    receipt: Receipt | None
    error: APIError | None
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, reply: Reply) -> "Point":
        data = reply.data
        failed = data.get("error") is not None
        return cls(
            index=data["index"],
            safety=data.get("safety"),
            helpfulness=data.get("helpfulness"),
            content=data.get("content"),
            finish_reason=data.get("finish_reason"),
            scores=Scores.of(data.get("scores")),
            usage=Usage.of(data.get("usage")),
            receipt=None if failed else Receipt.of(data["control"]),
            error=api_error(data, request_id=reply.request_id) if failed else None,
            raw=data,
        )


@dataclass(frozen=True, slots=True)
class Sweep:
    """One conversation at a grid of dials, its points in the grid's order."""

    model: str
    points: Sequence[Point]
    usage: Usage | None
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, reply: Reply) -> "Sweep":
        data = reply.data
        points = tuple(Point.of(Reply(point, reply.request_id)) for point in data["points"])
        return cls(data["model"], points, Usage.of(data.get("usage")), data)

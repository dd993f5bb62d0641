"""Rheostat's client: two dials, safety and helpfulness, on each request to a language model.

from rheostat import Client

with Client() as client:
    answer = client.chat("How do I repot a fern?", dials={"safety": 0.9, "helpfulness": 0.6})
    print(answer.content, answer.receipt.effective)
"""

from rheostat.answers import Answer, Judgement, Plan, Point, Scorer, Sweep
from rheostat.async_client import AsyncClient
from rheostat.calls import Messages, Options
from rheostat.client import Client
from rheostat.dials import MODES, Control, Dials, Mode, control_headers
from rheostat.drop_in import openai
from rheostat.envelope import Adapter, Blend, DialRange, Envelope
from rheostat.errors import (
    APIError,
    BadRequest,
    ConnectionFailed,
    Forbidden,
    InvalidValue,
    NoScorers,
    NotFound,
    OutsideEnvelope,
    RateLimited,
    RheostatError,
    ServerError,
    StreamFailed,
    TimedOut,
    Unauthorized,
    Unavailable,
    UnreadableAnswer,
)
from rheostat.receipt import Candidates, Choice, Receipt
from rheostat.reply import Scores, Usage
from rheostat.streams import AsyncChatStream, AsyncStream, ChatStream, Stream

__all__ = [
    "MODES",
    "APIError",
    "Adapter",
    "Answer",
    "AsyncChatStream",
    "AsyncClient",
    "AsyncStream",
    "BadRequest",
    "Blend",
    "Candidates",
    "ChatStream",
    "Choice",
    "Client",
    "ConnectionFailed",
    "Control",
    "DialRange",
    "Dials",
    "Envelope",
    "Forbidden",
    "InvalidValue",
    "Judgement",
    "Messages",
    "Mode",
    "NoScorers",
    "NotFound",
    "Options",
    "OutsideEnvelope",
    "Plan",
    "Point",
    "RateLimited",
    "Receipt",
    "RheostatError",
    "Scorer",
    "Scores",
    "ServerError",
    "Stream",
    "StreamFailed",
    "Sweep",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "UnreadableAnswer",
    "Usage",
    "control_headers",
    "openai",
]

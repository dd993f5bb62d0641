"""Valid bodies and headers, changed at random into what clients, proxies and attackers send."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

MARK: Final = "vornsekret"
"""Stands in every text that a caller writes; nothing of it may be logged."""
MESSAGES: Final = [
    {"role": "system", "content": f"Be brief, {MARK}."},
    {"role": "user", "content": [{"type": "text", "text": f"How do I dry {MARK} powder?"}]},
]
CHAT: Final[dict[str, Any]] = {
    "model": "demo", "messages": MESSAGES, "max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "seed": 7, "n": 1,
    "stop": [MARK], "stream": False, "logprobs": True, "top_logprobs": 2,
    "control": {"safety": 0.9, "helpfulness": 0.3, "mode": "adapter", "adapter": "plain"},
}  # fmt: skip
RERANKED: Final = {
    **{name: value for name, value in CHAT.items() if name not in ("logprobs", "top_logprobs")},
    "stream": True,
    "stream_options": {"include_usage": True},
    "control": {"safety": 1, "mode": "rerank", "candidates": 3, "choose_after": 2, "early_stop": False},
}
SWEPT: Final = {
    **{name: value for name, value in CHAT.items() if name != "n"},
    "sweep": {"safety": [0, 0.5], "helpfulness": [1], "scores": True},
}
BODIES: Final = {
    "/v1/chat/completions": [CHAT, RERANKED],
    "/v1/control/plan": [CHAT, RERANKED],
    "/v1/control/score": [{"messages": MESSAGES, "response": f"Slowly, {MARK}."}],
    "/v1/control/sweep": [SWEPT],
    "/v1/admin/policy/reload": [{"reload": MARK}],
}
"""Every POST route, and bodies that it answers."""
OFTEN: Final = (*BODIES, *list(BODIES)[:4], *list(BODIES)[:1] * 2)
"""The routes, those that do more with a body the oftener."""


class Literal(str):
    """JSON text that no encoder would write."""

    __slots__ = ()


ODD_TEXTS: Final = (
    "", " ", "\x00", f"{MARK}\u202e\u200b", "é" * 50, "\U0001f9ff" * 20, f"{MARK} " * 2_000, "../../etc/passwd", "null",
    "demo:", ":", "demo:strict", "demo:nobody", "a@b", "%s%n{}{0}", "[harmless=0.00]", "\r\nX-A: b", "\ufffe", "end",
)  # fmt: skip
ODD_NUMBERS: Final = (
    0, -1, -0.0, 1, 2, 17, 1e308, -1e308, 5e-324, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.1 + 0.2, 1_000_000
)  # fmt: skip
ODD_LITERALS: Final = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "0x1f", "01", "+1", "1.", ".5", "1e-999", "True",
    "undefined", '"\\ud800"', '"\\udc00\\ud800"', '"\\x41"', '"\t"', "'a'", '{"a":1,"a":2}', '{"":{"":""}}', "[,]",
    "[" * 63 + "]" * 63, "[" * 100 + "]" * 100, "[" * 5_000 + "]" * 5_000, '{"a":' * 200 + "1" + "}" * 200,
)  # fmt: skip
ODD_KEYS: Final = (
    "", " ", "\x00", "control ", "__proto__", "Model", f"{MARK}key", "messages[0]", "k" * 3_000, "temperature",
    "max_completion_tokens", "min_tokens", "logit_bias", "tools", "tool_choice", "response_format", "documents",
    "chat_template", "truncate_prompt_tokens", "chat_template_kwargs", "functions", "stream_options", "n", "stop",
    "safety", "mode", "preset", "candidates", "choose_after", "role", "content", "name", "\ud7ff", "type", "text",
    "user", "metadata",
)  # fmt: skip


def odd_value(chance: Random) -> Any:
    kind = chance.randrange(8)
    if kind == 0:
        return chance.choice(ODD_TEXTS)
    if kind == 1:
        return chance.choice(ODD_NUMBERS)
    if kind == 2:
        return Literal(chance.choice(ODD_LITERALS))
    if kind == 3:
        return chance.choice((None, True, False))
    if kind == 4:
        return [odd_value(chance) for _ in range(chance.randrange(4))]
    if kind == 5:
        return {chance.choice(ODD_KEYS): odd_value(chance) for _ in range(chance.randrange(4))}
    if kind == 6:
        return [{"role": chance.choice(ODD_TEXTS), "content": odd_value(chance)}]
    return "".join(chr(chance.choice((chance.randrange(0x80), chance.randrange(0xD800)))) for _ in range(9))


Place = tuple[Any, Any]
"""A container, and the key or index of one of its members."""


def places(value: Any) -> list[Place]:
    members = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    own: list[Place] = [(value, name) for name, _ in members]
    return own + [place for _, one in members if isinstance(one, (dict, list)) for place in places(one)]


def change(body: dict[str, Any], chance: Random) -> None:
    """One change anywhere within the body."""
    found = places(body)
    if not found:
        return
    container, name = chance.choice(found)
    kind = chance.randrange(5)
    if kind == 0:
        del container[name]
    elif kind == 1 and isinstance(container, dict):
        container[chance.choice(ODD_KEYS)] = odd_value(chance)
    elif kind == 2 and isinstance(container, list):
        container.extend([container[name]] * chance.choice((1, 2, 300)))
    elif kind == 3:
        other, other_name = chance.choice(found)
        container[name] = json.loads(json.dumps(other[other_name])) if other is not container else odd_value(chance)
    else:
        container[name] = odd_value(chance)


def encoded(value: Any) -> str:
    """JSON, with literals as they are."""
    if isinstance(value, Literal):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{encoded(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(encoded(inner) for inner in value) + "]"
    return json.dumps(value)


Bytes = Callable[[bytes, Random], bytes]


def _truncated(raw: bytes, chance: Random) -> bytes:
    return raw[: chance.randrange(len(raw) + 1)]


def _noisy(raw: bytes, chance: Random) -> bytes:
    noisy = bytearray(raw)
    for _ in range(chance.randrange(1, 6)):
        noisy.insert(chance.randrange(len(noisy) + 1), chance.randrange(256))
    return bytes(noisy)


def _doubled(raw: bytes, chance: Random) -> bytes:
    """Every member twice, the second one with something else."""
    return b'{"messages":null,"model":0,' + raw[1:-1] + b',"control":{"mode":"off"}}'


BYTES: Final[tuple[Bytes, ...]] = (
    _truncated, _noisy, _doubled,
    lambda raw, chance: gzip.compress(raw, mtime=0),
    lambda raw, chance: b"\xef\xbb\xbf" + raw,
    lambda raw, chance: raw.decode(errors="replace").encode("utf-16"),
    lambda raw, chance: raw + raw,
    lambda raw, chance: b"",
    lambda raw, chance: chance.randbytes(60),
    lambda raw, chance: b" " * 2_000_000 + raw,
    lambda raw, chance: encoded(odd_value(chance)).encode(errors="surrogatepass"),
)  # fmt: skip

CONTENT_TYPES: Final = (
    b"text/plain", b"", b"application/json; charset=utf-16", b"APPLICATION/JSON", b"application/x-www-form-urlencoded",
    b"multipart/form-data", b"application/json, text/html", b"\xff\xfe", b"application/jsonx", b";application/json",
)  # fmt: skip
ODD_HEADERS: Final = (
    b"", b" ", b"0.5", b" 0.5 ", b"1e-1", b"nan", b"inf", b"-0", b"+1", b"0.5, 0.1", b"\xd9\xa0", b"\xff\xfe\x80",
    b"magic", b"off", b"AUTO", b"9" * 500, b"0." + b"3" * 400, b"0x1", b"\xc2\xb2", b"Bearer ", b"Bearer \xff", b"gzip",
    b"a" * 9_000,
)  # fmt: skip
HEADERS: Final = (
    b"x-control-safety", b"x-control-helpfulness", b"x-control-mode", b"x-control-magic", b"x-request-id",
    b"authorization", b"content-encoding", b"content-length", b"accept", b"traceparent", b"cookie", b"expect",
    b"x-control-",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sent:
    path: str
    body: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


def mutated(chance: Random, *, paths: tuple[str, ...] = ()) -> Sent:
    """A request for one of the routes, with one or a few things wrong with it."""
    path = chance.choice(paths or OFTEN)
    body = json.loads(json.dumps(chance.choice(BODIES[path])))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        change(body, chance)
    raw = encoded(body).encode(errors="surrogatepass")
    if chance.random() < 0.15:
        raw = chance.choice(BYTES)(raw, chance)
    content_type = chance.choice(CONTENT_TYPES) if chance.random() < 0.05 else b"application/json"
    odd = [(chance.choice(HEADERS), chance.choice(ODD_HEADERS)) for _ in range(chance.choice((0, 0, 0, 0, 1, 2)))]
    return Sent(path, raw, [(b"content-type", content_type), *odd])

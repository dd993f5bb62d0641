"""Random policies and random requests, and what each policy says of each request, worked out apart from the server."""

from dataclasses import dataclass
from typing import Any, Final

from hypothesis import strategies as st

from rheostat_server.callers import Caller
from rheostat_server.callers.book import Book, Defaults
from rheostat_server.callers.schema import DialPart, EnvelopePart, PolicyPart
from rheostat_server.held import HELD
from rheostat_server.modes import CONTROLLED, KNOWN_MODES
from tests.robustness.rigs import BLENDED, CALIBRATED, PLAIN

DIALS: Final = ("safety", "helpfulness")
PRESETS: Final = ("strict", "bold", "mixed")
ADAPTERS: Final = (PLAIN.name, PLAIN.id, CALIBRATED.name, CALIBRATED.id)
NAMES: Final = (*ADAPTERS, BLENDED.name)
"""Of adapters and blends."""
DEFAULT: Final = 0.75

MODES: Final = (*KNOWN_MODES, "off", "off")
"""`off` is permitted only where an envelope names it, and so comes rarely otherwise."""

levels = st.one_of(st.sampled_from([0, 0.0, 0.2, 0.25, 0.5, 0.75, 0.8, 1, 1.0]), st.floats(0, 1))
decimals = st.integers(0, 1000).map(lambda number: number / 1000)
counts = st.sampled_from([1, 2, 3, 4, 8, 15, 16])
tokens = st.sampled_from([1, 2, 7, 16, 64, 500, 4096])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def dials(draw: st.DrawFn, floor: float) -> dict[str, Any]:
    """One whose greatest value is not below the floor, as the file's reader demands."""
    low, default, high = sorted(draw(st.tuples(levels, levels, levels)))
    high = max(high, floor)
    given = {"min": low, "default": default, "max": high, "locked": draw(st.booleans())}
    left_out = draw(st.sets(st.sampled_from(["min", "default", "locked"])))
    return {name: value for name, value in given.items() if name not in left_out}


@st.composite
def envelopes(draw: st.DrawFn, floor: dict[str, float]) -> dict[str, Any]:
    given = draw(
        some(
            modes=st.lists(st.sampled_from(MODES), min_size=1, max_size=8),
            adapters=st.lists(st.sampled_from(NAMES), max_size=2),
            presets=st.lists(st.sampled_from(PRESETS), max_size=2), candidates=counts, max_tokens=tokens,
            outside=st.sampled_from(["clamp", "reject"]), safety_floor=levels,
        )
    )  # fmt: skip
    for name in draw(st.sets(st.sampled_from(DIALS))):
        given[name] = draw(dials(floor.get(name, 0.0)))
    if draw(st.booleans()):
        given["default_mode"] = draw(st.sampled_from(given.get("modes", CONTROLLED)))
    if draw(st.integers(0, 9)) == 0:
        given["models"] = ["other"]
    return given


@st.composite
def policies(draw: st.DrawFn) -> PolicyPart:
    floor = draw(some(safety=levels, helpfulness=levels)) if draw(st.booleans()) else {}
    # A dial that an envelope does not name goes up to 1, so no floor is above it.
    preset = some(safety=levels, helpfulness=levels, mode=st.sampled_from(KNOWN_MODES))
    return PolicyPart.model_validate(
        {
            "floor": floor,
            "anonymous": "one",
            "envelopes": {"one": draw(envelopes(floor))},
            "presets": {name: draw(preset) for name in PRESETS},
        }
    )


numbers = st.one_of(st.integers(1, 600), st.sampled_from([0, -1, -(2**63), 2**63, None]))
"""Of tokens; below 1 some engines take them for no limit."""
known_modes = st.sampled_from([*MODES, *MODES, "magic"])
presets = st.sampled_from([*PRESETS, *PRESETS, "unknown"])


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Body and headers of a request, as a client would send them."""
    control = draw(some(safety=levels, helpfulness=levels))
    many = draw(st.sets(st.sampled_from(["mode", "preset", "candidates", "adapter", "early_stop"]), max_size=3))
    choices: dict[str, st.SearchStrategy[Any]] = {
        "mode": known_modes, "preset": presets, "candidates": st.integers(1, 40),
        "adapter": st.sampled_from([*NAMES, "unknown"]), "early_stop": st.booleans(),
    }  # fmt: skip
    control |= {name: draw(choices[name]) for name in sorted(many)}
    bounds = draw(some(n=st.integers(1, 16), max_tokens=numbers, max_completion_tokens=numbers))
    if draw(st.integers(0, 3)) == 0:
        bounds |= draw(around)
    headers = draw(
        some(**{"X-Control-Safety": decimals, "X-Control-Helpfulness": decimals, "X-Control-Mode": known_modes})
    )
    model = draw(st.sampled_from(["demo", "demo", "demo", *(f"demo:{name}" for name in PRESETS)]))
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "control": control, **bounds}
    return {"body": body, "headers": {name: str(value) for name, value in headers.items()}}


ANOTHER_CASE: Final = ("Model", "MESSAGES", "Max_Tokens", "me\u017f\u017fages", "N_Predict")
around = st.dictionaries(
    st.sampled_from([*HELD, "min_tokens", *ANOTHER_CASE]),
    st.one_of(st.integers(-1, 600), st.sampled_from([None, True, 1.5, "9", 2**63, ["other"], {"n_predict": 9999}])),
    max_size=2,
)
"""Fields by which engines can be asked for more than an envelope holds."""


def caller_of(part: PolicyPart) -> Caller:
    """Whoever comes without a key."""
    return Book.of(part, Defaults()).caller_without_key()


@dataclass(frozen=True)
class Said:
    """What a policy says of a request, worked out from the file's parts and the request as sent."""

    part: PolicyPart
    request: dict[str, Any]

    @property
    def envelope(self) -> EnvelopePart:
        return self.part.envelopes["one"]

    @property
    def modes(self) -> set[str]:
        return set(self.envelope.modes or set(KNOWN_MODES) - {"off"})

    @property
    def preset(self) -> str | None:
        _, _, by_model = self.request["body"]["model"].partition(":")
        return self.request["body"]["control"].get("preset") or by_model or None

    @property
    def asked(self) -> dict[str, float]:
        """The preset's dials, then the headers', then the body's."""
        assert self.part.presets is not None
        preset = self.part.presets[self.preset].dials() if self.preset else {}
        headers = {name: self.request["headers"].get(f"X-Control-{name.title()}") for name in DIALS}
        body = {name: self.request["body"]["control"].get(name) for name in DIALS}
        return {
            **{str(name): value for name, value in preset.items()},
            **{name: float(value) for name, value in headers.items() if value is not None},
            **{name: value for name, value in body.items() if value is not None},
        }

    def range(self, dial: str) -> tuple[float, float]:
        """The least and the greatest value that may be in force."""
        part: DialPart = getattr(self.envelope, dial)
        low = max(part.min, getattr(self.part.floor, dial))
        if not part.locked:
            return low, part.max
        fixed = min(max(DEFAULT if part.default is None else part.default, low), part.max)
        return fixed, fixed

    @property
    def most(self) -> dict[str, int | None]:
        candidates = self.envelope.candidates or Defaults().max_candidates
        bound = self.envelope.max_tokens
        return {"candidates": candidates, "n": candidates, "max_tokens": bound, "max_completion_tokens": bound}

    def around(self, mode: str) -> list[str]:
        """The fields of a body that a request in that mode must not come through with."""
        body, bound = self.request["body"], self.envelope.max_tokens
        given = {name: value for name, value in body.items() if value is not None}
        held = {"choices", *(["tokens"] if bound else [])}
        if mode != "off" or self.envelope.adapters is not None:
            held.add("model")
        named = [name for name in given if name in HELD and HELD[name][0] in held]
        choices = [name for name in named if HELD[name][0] == "choices"]
        drawn = min(given.get("n", 1), self.envelope.candidates or Defaults().max_candidates)
        harmless = [name for name in choices if isinstance(given[name], int) and given[name] <= drawn]
        below = [name for name in ("max_tokens", "max_completion_tokens") if bound and given.get(name, 1) < 1]
        return [*(set(named) - set(harmless)), *below, *(name for name in body if name in ANOTHER_CASE)]

    @property
    def beyond(self) -> list[str]:
        """All that is asked for and not allowed, by the names and in the order in which a receipt tells them."""
        out = [name for name, value in self.asked.items() if not self.range(name)[0] <= value <= self.range(name)[1]]
        numbers = {**self.request["body"], "candidates": self.request["body"]["control"].get("candidates")}
        over = [name for name, most in self.most.items() if most is not None and (numbers.get(name) or 0) > most]
        return [*(name for name in DIALS if name in out), *over]

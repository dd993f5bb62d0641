"""The policy file as YAML says it; what it means is in `book.py`."""

from datetime import UTC, date, datetime, time
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from rheostat_server.callers import ANONYMOUS
from rheostat_server.callers.keys import is_key
from rheostat_server.contract.dials import DialName, Level
from rheostat_server.modes import CONTROLLED, KNOWN_MODES


def _no_key(name: str) -> str:
    """A name is shown to everyone who reads logs."""
    if is_key(name):
        raise ValueError("this is a key; write a name here, and the key's SHA-256 under keys")
    return name


def _somebody(name: str) -> str:
    if name == ANONYMOUS:
        raise ValueError("callers without a key have this name; take another one")
    return name


LONGEST_NAME: Final = 64
Name = Annotated[str, Field(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._@-]{{0,{LONGEST_NAME - 1}}}$"), AfterValidator(_no_key)]
CallerName = Annotated[Name, AfterValidator(_somebody)]


def _moment(value: object) -> object:
    """A date holds until its end, in UTC; a time without zone is UTC's."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime.combine(value, time.max, tzinfo=UTC)
    raise ValueError("a date or a time, such as 2027-01-31 or 2027-01-31T12:00:00Z, without quotes")


def _known_mode(mode: str) -> str:
    if mode not in KNOWN_MODES:
        raise ValueError(f"there is no mode {mode!r}; known modes: {', '.join(KNOWN_MODES)}")
    return mode


Moment = Annotated[datetime, BeforeValidator(_moment)]
ModeName = Annotated[str, AfterValidator(_known_mode)]
Count = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DialPart(_Part):
    """The values of a dial that a caller may have; with `locked` it is always the default."""

    min: Level = 0.0
    max: Level = 1.0
    default: Level | None = None
    locked: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> "DialPart":
        if self.min > self.max:
            raise ValueError(f"min is {self.min:g} and max is {self.max:g}; min must not be above max")
        if self.default is not None and not self.min <= self.default <= self.max:
            raise ValueError(f"default is {self.default:g}; it must lie from {self.min:g} to {self.max:g}")
        return self


class RatePart(_Part):
    """Most requests, tokens and candidates by minute, and requests at once."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    candidates_per_minute: Count | None = None
    parallel: Count | None = None


class EnvelopePart(_Part):
    """The limits of callers. What is left out is not limited, but the mode `off`, which has to be named."""

    safety: DialPart = DialPart()
    helpfulness: DialPart = DialPart()
    modes: list[ModeName] | None = Field(default=None, min_length=1)
    default_mode: ModeName | None = None
    adapters: list[str] | None = None
    presets: list[str] | None = None
    models: list[str] | None = Field(default=None, min_length=1)
    candidates: Count | None = None
    max_tokens: Count | None = None
    safety_floor: Level | None = None
    refusal: str | None = Field(default=None, min_length=1)
    rate: RatePart = RatePart()
    outside: Literal["clamp", "reject"] = "clamp"

    @model_validator(mode="after")
    def _default_is_allowed(self) -> "EnvelopePart":
        if self.default_mode and self.default_mode not in (self.modes or CONTROLLED):
            raise ValueError(f"default_mode is {self.default_mode!r}, which modes does not hold")
        return self


class KeyPart(_Part):
    """A key as its SHA-256 in hex, as `rheostat keys create` writes it.

    `caller` is whose it is, where that is not the key's own name: a caller has two keys while one takes the other's
    place.
    """

    name: CallerName
    sha256: str
    envelope: str
    caller: CallerName | None = None
    expires: Moment | None = None
    admin: bool = False

    @property
    def owner(self) -> str:
        return self.caller or self.name

    @field_validator("sha256")
    @classmethod
    def _is_a_hash(cls, digest: str) -> str:
        if len(digest) != 64 or set(digest.lower()) - set("0123456789abcdef"):
            raise ValueError("64 hexadecimal digits, the SHA-256 of the key; never the key itself")
        return digest.lower()


class ClaimPart(_Part):
    """A token whose `claim` is `value`, or a list that holds it, has that envelope."""

    claim: str = Field(min_length=1)
    value: str
    envelope: str


class OidcPart(_Part):
    """An issuer of OpenID Connect whose tokens are taken in the place of keys; the first claim that fits holds."""

    issuer: str = Field(pattern=r"^https?://\S+$")
    audience: str = Field(min_length=1)
    name_claim: str = "sub"
    claims: list[ClaimPart] = Field(min_length=1)


class PresetPart(_Part):
    """A named setting of the dials."""

    safety: Level | None = None
    helpfulness: Level | None = None
    mode: ModeName | None = None

    def dials(self) -> dict[DialName, float]:
        given: dict[DialName, float | None] = {"safety": self.safety, "helpfulness": self.helpfulness}
        return {name: value for name, value in given.items() if value is not None}


class FloorPart(_Part):
    """Values of the dials below which no envelope goes."""

    safety: Level = 0.0
    helpfulness: Level = 0.0


class PolicyPart(_Part):
    """The whole file."""

    floor: FloorPart = FloorPart()
    anonymous: str | None = None
    envelopes: dict[Name, EnvelopePart] = Field(min_length=1)
    keys: list[KeyPart] = Field(default_factory=list)
    oidc: OidcPart | None = None
    presets: dict[Name, PresetPart] | None = None

    @field_validator("keys", mode="before")
    @classmethod
    def _no_keys(cls, given: Any) -> Any:
        return [] if given is None else given

    @field_validator("envelopes", "presets", mode="before")
    @classmethod
    def _empty_parts(cls, given: Any) -> Any:
        """`lab:` with nothing behind it is an envelope without limits of its own."""
        if not isinstance(given, dict):
            return given
        return {name: {} if part is None else part for name, part in given.items()}

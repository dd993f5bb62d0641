"""Reads a policy file and checks it whole: every fault is told at once, by its line."""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.parser import ParserError
from ruamel.yaml.scanner import ScannerError

from rheostat_server.callers.keys import PREFIX
from rheostat_server.callers.schema import PolicyPart
from rheostat_server.errors import CannotStart
from rheostat_server.policy import DEFAULT_PRESETS

LONGEST_FILE: Final = 16 * 2**20
_LONGEST_VALUE: Final = 60
_MADE_HERE: Final = re.compile(re.escape(PREFIX) + r"[A-Za-z0-9_-]+")
Place = tuple[int | str, ...]


class PolicyError(CannotStart):
    """A policy file cannot be read or does not fit; the message names every fault by its line."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a running server has, so that names in the file can be checked; None where it is not known yet."""

    models: Collection[str] | None = None
    adapters: Collection[str] | None = None


@dataclass(slots=True)
class _Faults:
    """What is wrong with a file, and where; no key that was made here is quoted, wherever it stands."""

    path: Path
    raw: bytes
    found: list[tuple[Place, str]] = field(default_factory=list)

    def add(self, place: Place, message: str) -> None:
        self.found.append((place, message))

    def check(self) -> None:
        if self.found:
            tree = _with_lines(self.raw)
            told = [self._told(tree, place, message) for place, message in self.found]
            raise PolicyError("\n".join(told)) from None

    def _told(self, tree: Any, place: Place, message: str) -> str:
        name = ".".join(str(part) for part in place) or "the file"
        return f"{self.path}:{_line_of(tree, place)}: {_without_keys(f'{name}: {message}')}"


def read_policy(path: Path, known: Known | None = None) -> tuple[PolicyPart, str]:
    """The policy of a file, and the SHA-256 of its bytes.

    Raises:
        PolicyError: the file cannot be read, is no YAML, or does not fit.
    """
    raw = _read(path)
    faults = _Faults(path, raw)
    try:
        policy = PolicyPart.model_validate(_parsed(path, raw))
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            faults.add(_place(error), _told(error))
        faults.check()
        raise
    _check_names(policy, faults, known or Known())
    faults.check()
    return policy, hashlib.sha256(raw).hexdigest()


def _read(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise PolicyError(f"the policy file {path} cannot be read: {exc.strerror or exc}") from exc
    if len(raw) > LONGEST_FILE:
        raise PolicyError(f"the policy file {path} has {len(raw)} bytes; at most {LONGEST_FILE} are read")
    return raw


def _parsed(path: Path, raw: bytes) -> Any:
    """The plain values; names that stand twice are faults of YAML."""
    try:
        return YAML(typ="safe", pure=True).load(raw)
    except MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise PolicyError(f"{path}:{line}: this is no YAML: {_problem(exc)}") from None
    except (YAMLError, UnicodeDecodeError, RecursionError) as exc:
        raise PolicyError(f"{path}:1: this is no YAML: {' '.join(str(exc).split())}") from exc


def _with_lines(raw: bytes) -> Any:
    """The same with the line of each part, which takes as long again: for faults alone."""
    try:
        return YAML(typ="rt").load(raw)
    except (YAMLError, RecursionError):
        return None


def _problem(error: MarkedYAMLError) -> str:
    """Up to what it quotes, which may be a key; where YAML itself is wrong that is a sign or two."""
    problem = " ".join(str(error.problem or type(error).__name__).split())
    if isinstance(error, (ScannerError, ParserError)):
        return _without_keys(problem)
    return re.split("[\"']", problem)[0].strip()


def _check_names(policy: PolicyPart, faults: _Faults, known: Known) -> None:
    """What one part says of another."""
    _check_envelopes(policy, faults, known)
    _check_keys(policy, faults)
    if policy.anonymous is not None:
        _check_known(("anonymous",), policy.anonymous, policy.envelopes, "envelope", faults)
    for at, claim in enumerate(policy.oidc.claims if policy.oidc else []):
        _check_known(("oidc", "claims", at, "envelope"), claim.envelope, policy.envelopes, "envelope", faults)


def _check_envelopes(policy: PolicyPart, faults: _Faults, known: Known) -> None:
    for name, part in policy.envelopes.items():
        for dial, most, floor in (
            ("safety", part.safety.max, policy.floor.safety),
            ("helpfulness", part.helpfulness.max, policy.floor.helpfulness),
        ):
            if most < floor:
                faults.add(("envelopes", name, dial, "max"), f"it is {most:g}, below the floor of {floor:g}")
        for kind, allowed, there in (
            ("presets", part.presets, DEFAULT_PRESETS if policy.presets is None else policy.presets),
            ("models", part.models, known.models),
            ("adapters", part.adapters, known.adapters),
        ):
            for at, one in enumerate(allowed or []):
                if there is not None:
                    _check_known(("envelopes", name, kind, at), one, there, kind.removesuffix("s"), faults)


def _check_keys(policy: PolicyPart, faults: _Faults) -> None:
    """No value is quoted: it may be the key itself, under the wrong name."""
    names: dict[str, int] = {}
    hashes: dict[str, int] = {}
    owners: dict[str, int] = {}
    for at, key in enumerate(policy.keys):
        if key.envelope not in policy.envelopes:
            faults.add(("keys", at, "envelope"), f"there is no such envelope; {_there_are(policy.envelopes)}")
        for what, value, first in (("name", key.name, names), ("sha256", key.sha256, hashes)):
            if first.setdefault(value, at) != at:
                faults.add(("keys", at, what), f"keys.{first[value]} has the same")
        first_of_caller = owners.setdefault(key.owner, at)
        if key.envelope in policy.envelopes and key.envelope != policy.keys[first_of_caller].envelope:
            faults.add(("keys", at, "envelope"), f"keys.{first_of_caller} is of the same caller, and has another one")


def _check_known(place: Place, name: str, known: Collection[str], what: str, faults: _Faults) -> None:
    if name not in known:
        faults.add(place, f"there is no {what} {name!r}; {_there_are(known)}")


def _there_are(known: Collection[str]) -> str:
    return f"there are: {', '.join(sorted(known)) or 'none'}"


def _place(error: ErrorDetails) -> Place:
    """Less the marks that pydantic puts there for a name of a mapping that does not fit."""
    return tuple(part for part in error["loc"] if part != "[key]")


def _told(error: ErrorDetails) -> str:
    """A value is quoted where it cannot be a key under the wrong name."""
    message = error["msg"].removeprefix("Value error, ")
    if _place(error)[:1] in ((), ("keys",)) or isinstance(error["input"], (dict, list)):
        return message
    value = repr(error["input"])
    return f"{message}; it is {value if len(value) <= _LONGEST_VALUE else f'{value[:_LONGEST_VALUE]}…'}"


def _without_keys(text: str) -> str:
    return _MADE_HERE.sub(f"{PREFIX}…", text)


def _line_of(tree: Any, place: Sequence[int | str]) -> int:
    """The line of the last part of a place that the file has, from 1."""
    line = 0
    for part in place:
        if isinstance(tree, CommentedMap) and part in tree:
            line = tree.lc.key(part)[0]
        elif isinstance(tree, CommentedSeq) and isinstance(part, int) and part < len(tree):
            line = tree.lc.item(part)[0]
        else:
            break
        tree = tree[part]
    return line + 1

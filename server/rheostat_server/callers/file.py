"""Reads a policy file and checks it whole: every fault is told at once, by its line."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from rheostat_server.callers.schema import PolicyPart
from rheostat_server.errors import CannotStart

LONGEST_FILE: Final = 16 * 2**20
_LONGEST_VALUE: Final = 60
_SECRET: Final = frozenset({"sha256"})
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
    """What is wrong with a file, and where."""

    path: Path
    tree: Any
    told: list[str] = field(default_factory=list)

    def add(self, place: Place, message: str) -> None:
        name = ".".join(str(part) for part in place) or "the file"
        self.told.append(f"{self.path}:{_line_of(self.tree, place)}: {name}: {message}")

    def check(self) -> None:
        if self.told:
            raise PolicyError("\n".join(self.told))


def read_policy(path: Path, known: Known | None = None) -> tuple[PolicyPart, str]:
    """The policy of a file, and the SHA-256 of its bytes.

    Raises:
        PolicyError: the file cannot be read, is no YAML, or does not fit.
    """
    raw = _read(path)
    tree, found = _parsed(path, raw)
    faults = _Faults(path, tree)
    try:
        policy = PolicyPart.model_validate(found)
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


def _parsed(path: Path, raw: bytes) -> tuple[Any, Any]:
    """The tree with its lines, and its plain values; names that stand twice are faults of YAML."""
    try:
        return YAML(typ="rt").load(raw), YAML(typ="safe", pure=True).load(raw)
    except MarkedYAMLError as exc:
        line = exc.problem_mark.line + 1 if exc.problem_mark else 1
        raise PolicyError(f"{path}:{line}: this is no YAML: {' '.join(str(exc.problem or exc).split())}") from exc
    except (YAMLError, UnicodeDecodeError, RecursionError) as exc:
        raise PolicyError(f"{path}:1: this is no YAML: {' '.join(str(exc).split())}") from exc


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
            ("presets", part.presets, policy.presets),
            ("models", part.models, known.models),
            ("adapters", part.adapters, known.adapters),
        ):
            for at, one in enumerate(allowed or []):
                if there is not None:
                    _check_known(("envelopes", name, kind, at), one, there, kind.removesuffix("s"), faults)


def _check_keys(policy: PolicyPart, faults: _Faults) -> None:
    for at, key in enumerate(policy.keys):
        _check_known(("keys", at, "envelope"), key.envelope, policy.envelopes, "envelope", faults)
        for what, others in (
            ("name", [other.name for other in policy.keys[:at]]),
            ("sha256", [other.sha256 for other in policy.keys[:at]]),
        ):
            if getattr(key, what) in others:
                faults.add(("keys", at, what), f"keys.{others.index(getattr(key, what))} has the same")


def _check_known(place: Place, name: str, known: Collection[str], what: str, faults: _Faults) -> None:
    if name not in known:
        faults.add(place, f"there is no {what} {name!r}; there are: {', '.join(sorted(known)) or 'none'}")


def _place(error: ErrorDetails) -> Place:
    """Less the marks that pydantic puts there for a name of a mapping that does not fit."""
    return tuple(part for part in error["loc"] if part != "[key]")


def _told(error: ErrorDetails) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if _SECRET & set(error["loc"]) or isinstance(error["input"], (dict, list)):
        return message
    value = repr(error["input"])
    return f"{message}; it is {value if len(value) <= _LONGEST_VALUE else f'{value[:_LONGEST_VALUE]}…'}"


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

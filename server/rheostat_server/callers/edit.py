"""A policy file as `rheostat keys` changes it: comments and order stay, and it is written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fcntl import LOCK_EX, flock
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML

from rheostat_server.callers.file import PolicyError, read_policy
from rheostat_server.callers.keys import digest_of, new_key
from rheostat_server.callers.schema import LONGEST_NAME

ENDED: Final = "-until-%Y%m%dT%H%M%S"
"""How the name of a key that another one replaces goes on."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """Every change is checked as a server would check it before it takes the old file's place."""

    path: Path

    def create(self, name: str, envelope: str, *, expires: datetime | None = None, admin: bool = False) -> str:
        """Adds a caller and returns its key, which is written nowhere.

        Raises:
            PolicyError: there is one of that name, no such envelope, or the file does not fit.
        """
        with self._changed() as policy:
            if name in _names(policy):
                raise PolicyError(f"{self.path}: there is a key named {name!r}; rotate it, or take another name")
            key = new_key()
            _keys(policy).append(_entry(name, key, envelope, expires, admin=admin))
        return key

    def revoke(self, name: str) -> None:
        """Takes a key away, and all others of the caller of that name; raises PolicyError if there is none."""
        with self._changed() as policy:
            keys = _keys(policy)
            ended = {at for at, key in enumerate(keys) if key.get("caller") == name} | {self._place(name, policy)}
            for at in sorted(ended, reverse=True):
                del keys[at]

    def rotate(self, name: str, *, grace: timedelta = timedelta(0)) -> str:
        """A new key for a caller. The old one ends at once, or is the same caller's, by another name, for `grace`."""
        with self._changed() as policy:
            keys = _keys(policy)
            old = keys[self._place(name, policy)]
            key = new_key()
            if grace:
                until = _written(datetime.now(UTC) + grace)
                whose = {"name": _name_until(name, until), "caller": old.get("caller", name)}
                keys.append({**old, **whose, "expires": until})
            old["sha256"] = digest_of(key)
        return key

    def _place(self, name: str, policy: Any) -> int:
        names = _names(policy)
        if name not in names:
            raise PolicyError(f"{self.path}: there is no key {name!r}; there are: {', '.join(names) or 'none'}")
        return names.index(name)

    @contextmanager
    def _changed(self) -> Iterator[Any]:
        """The file's tree, to be changed; two who change it at once do so one after the other."""
        with _locked(self.path):
            read_policy(self.path)
            yaml = YAML(typ="rt")
            yaml.width = 1 << 16
            yaml.preserve_quotes = True
            yaml.representer.add_representer(type(None), _written_null)
            policy = yaml.load(self.path.read_bytes())
            yield policy
            written = BytesIO()
            yaml.dump(policy, written)
            self._replace(written.getvalue())

    def _replace(self, content: bytes) -> None:
        handle, beside = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).chmod(self.path.stat().st_mode & 0o777)
            read_policy(Path(beside))
            Path(beside).replace(self.path.resolve())
        except PolicyError as exc:
            raise PolicyError(str(exc).replace(beside, str(self.path))) from exc
        finally:
            Path(beside).unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the file's folder, since the file itself is replaced."""
    try:
        handle = os.open(path.resolve().parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise PolicyError(f"the policy file {path} cannot be read: {exc.strerror}") from exc
    try:
        flock(handle, LOCK_EX)
        yield
    finally:
        os.close(handle)


def _keys(policy: Any) -> Any:
    if policy.get("keys") is None:
        policy["keys"] = []
    return policy["keys"]


def _names(policy: Any) -> list[str]:
    return [str(key["name"]) for key in policy.get("keys") or []]


def _entry(name: str, key: str, envelope: str, expires: datetime | None, *, admin: bool) -> dict[str, Any]:
    return {
        "name": name,
        "sha256": digest_of(key),
        "envelope": envelope,
        **({"expires": _written(expires)} if expires else {}),
        **({"admin": True} if admin else {}),
    }


def _name_until(name: str, until: datetime) -> str:
    end = until.strftime(ENDED)
    return name[: LONGEST_NAME - len(end)] + end


def _written_null(representer: Any, _: None) -> Any:
    """As people write it; ruamel would leave the place empty."""
    return representer.represent_scalar("tag:yaml.org,2002:null", "null")


def _written(moment: datetime) -> datetime:
    """In UTC and whole seconds, as YAML writes it."""
    return moment.astimezone(UTC).replace(microsecond=0)

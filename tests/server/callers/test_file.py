"""A policy file is checked whole, and every fault is told by its line."""

import traceback
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rheostat_server.callers.book import Book, Defaults
from rheostat_server.callers.file import Known, PolicyError, read_policy
from rheostat_server.callers.keys import PREFIX, is_key, new_key
from rheostat_server.errors import Unauthorized
from tests.server.callers.files import KIDS_KEY, LAB_KEY, POLICY, write

HASH = "0" * 64


def book_of(folder: Path, text: str = POLICY) -> Book:
    part, digest = read_policy(write(folder, text))
    return Book.of(part, Defaults(), digest=digest)


def test_each_key_has_its_envelope(tmp_path: Path) -> None:
    book = book_of(tmp_path)
    kids, lab = book.caller_of_key(KIDS_KEY), book.caller_of_key(LAB_KEY)
    assert kids is not None
    assert lab is not None
    envelope = kids.policy.envelope
    assert (kids.name, kids.key) == ("kids-app", "kids-app")
    assert (envelope.name, envelope.modes, envelope.default_mode) == ("children", ("adapter", "rerank"), "adapter")
    assert envelope.safety.ends == (0.8, 1.0)
    assert envelope.safety.default == 1.0
    assert (envelope.helpfulness.ends, envelope.helpfulness.default) == ((0.0, 0.8), 0.75)
    assert envelope.max_candidates == 8
    assert lab.policy.envelope.rates.requests_per_minute == 600
    assert lab.policy.presets["bold"].mode == "prompt"
    assert book.caller_of_key("somebody-else") is None


def test_no_envelope_goes_below_the_floor(tmp_path: Path) -> None:
    assert book_of(tmp_path).policies["lab"].envelope.safety.ends == (0.2, 1.0)


def test_an_envelope_that_names_no_modes_has_all_but_off(tmp_path: Path) -> None:
    envelope = book_of(tmp_path, "envelopes: {open: }").policies["open"].envelope
    assert "off" not in envelope.modes
    assert envelope.default_mode == "auto"
    named = book_of(tmp_path, "envelopes: {open: {modes: ['off', auto]}}").policies["open"].envelope
    assert named.default_mode == "auto"


def test_a_locked_dial_has_its_default_alone(tmp_path: Path) -> None:
    text = "floor: {safety: 0.4}\nenvelopes: {quiet: {safety: {default: 0.3, locked: true}}}"
    dial = book_of(tmp_path, text).policies["quiet"].envelope.safety
    assert (dial.ends, dial.default, dial.locked) == ((0.4, 0.4), 0.4, True)


def test_nobody_calls_without_a_key_unless_the_operator_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unauthorized, match="Bearer KEY"):
        book_of(tmp_path).caller_without_key()
    caller = book_of(tmp_path, "anonymous: open\nenvelopes: {open: }").caller_without_key()
    assert (caller.name, caller.policy.envelope.name, caller.admin) == ("anonymous", "open", False)


def test_a_key_ends_when_it_expires(tmp_path: Path) -> None:
    text = POLICY.replace("envelope: lab}", "envelope: lab, expires: 2027-03-01}")
    book = book_of(tmp_path, text)
    assert book.caller_of_key(LAB_KEY, now=datetime(2027, 3, 1, 23, 59, tzinfo=UTC)) is not None
    with pytest.raises(Unauthorized, match="'lab-app' expired on 2027-03-01"):
        book.caller_of_key(LAB_KEY, now=datetime(2027, 3, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("envelopes: {a: {safety: {min: 1.8}}}", 1, "envelopes.a.safety.min: .*less than or equal to 1; it is 1.8"),
        ("envelopes:\n  a:\n    safety:\n      min: high", 4, "envelopes.a.safety.min: a number from 0 to 1"),
        ("envelopes:\n  a:\n    safety: {min: 0.9, max: 0.1}", 3, "min is 0.9 and max is 0.1"),
        ("envelopes:\n  a: {safety: {default: 0.1, min: 0.4}}", 2, "default is 0.1; it must lie from 0.4 to 1"),
        ("floor: {safety: 0.5}\nenvelopes:\n  a:\n    safety: {max: 0.4}", 4, "below the floor of 0.5"),
        ("envelopes:\n  a: {modes: [magic]}", 2, "there is no mode 'magic'; known modes: auto, off"),
        ("envelopes:\n  a: {modes: [prompt], default_mode: adapter}", 2, "default_mode is 'adapter'"),
        ("envelopes:\n  a: {default_mode: 'off'}", 2, "default_mode is 'off'"),
        ("envelopes:\n  a:\n    candidats: 3", 3, "envelopes.a.candidats: Extra inputs"),
        ("envelopes:\n  a: {candidates: 0}", 2, "greater than or equal to 1; it is 0"),
        ("envelopes:\n  a: {rate: {requests_per_minute: 1.5}}", 2, "valid integer"),
        ("envelopes: {a: }\nkeys:\n  - {name: k, sha256: x, envelope: a}", 3, "keys.0.sha256: 64 hexadecimal digits"),
        (
            f"envelopes: {{a: }}\nkeys:\n  - name: k\n    sha256: '{HASH}'\n    envelope: b",
            5,
            "no such envelope; there are: a",
        ),
        ("anonymous: b\nenvelopes: {a: }", 1, "anonymous: there is no envelope 'b'; there are: a"),
        ("envelopes:\n  a: {presets: [wild]}\npresets: {calm: {safety: 1}}", 2, "no preset 'wild'; there are: calm"),
        ("envelopes:\n  a: {presets: [stric]}", 2, "no preset 'stric'; there are: balanced, open, strict"),
        ("envelopes: {a: }\nkeys:\n  - {name: k, sha256: 'A', envelope: a, expires: soon}", 3, "a date or a time"),
        (f"envelopes: {{a: }}\nkeys:\n  - {{name: anonymous, sha256: '{HASH}', envelope: a}}", 3, "take another one"),
        (f"envelopes: {{a: }}\nkeys:\n  - {{name: k, caller: 'oidc:x', sha256: '{HASH}', envelope: a}}", 3, "match"),
        ("keys: []", 1, "envelopes: Field required"),
        ("envelopes: {}", 1, "at least 1 item"),
        ("[1, 2]", 1, "the file: "),
        ("", 1, "the file: "),
        ("envelopes: {a: }\nenvelopes: {b: }", 2, "no YAML: .*duplicate key"),
        ("envelopes: {a: ]", 1, "no YAML"),
        ("envelopes: {a: !!python/object:os.system {}}", 1, "no YAML: could not determine a constructor"),
    ],
)
def test_a_fault_is_told_by_its_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError, match=told) as refusal:
        read_policy(path)
    assert str(refusal.value).startswith(f"{path}:{line}: ")


def test_all_faults_are_told_at_once_and_no_hash_is_quoted(tmp_path: Path) -> None:
    text = f"""\
    envelopes:
      a: {{}}
    keys:
      - {{name: one, sha256: "{HASH}", envelope: a}}
      - {{name: one, sha256: "{HASH}", envelope: lost}}
    """
    with pytest.raises(PolicyError) as refusal:
        read_policy(write(tmp_path, text))
    assert [line.split(": ", 1)[1].split(":")[0] for line in str(refusal.value).splitlines()] == [
        "keys.1.envelope", "keys.1.name", "keys.1.sha256",
    ]  # fmt: skip
    assert HASH not in str(refusal.value)
    secret = "sk-not-a-hash-but-the-key-itself"
    with pytest.raises(PolicyError) as refusal:
        read_policy(write(tmp_path, f"envelopes: {{a: }}\nkeys: [{{name: k, sha256: {secret}, envelope: a}}]"))
    assert secret not in str(refusal.value)


def test_a_caller_may_have_two_keys_with_the_same_envelope(tmp_path: Path) -> None:
    text = POLICY.replace("envelope: lab}", "envelope: lab, caller: kids-app}")
    with pytest.raises(PolicyError, match=r":14: keys.1.envelope: keys.0 is of the same caller, and has another one"):
        book_of(tmp_path, text)
    book = book_of(tmp_path, text.replace("envelope: lab, caller", "envelope: children, caller"))
    callers = [book.caller_of_key(key) for key in (KIDS_KEY, LAB_KEY)]
    assert [caller and (caller.name, caller.key) for caller in callers] == [
        ("kids-app", "kids-app"),
        ("kids-app", "lab-app"),
    ]


OWN_KEY = "a-key-of-our-own-making"
KEY_OF_OURS = f"{PREFIX}{'Kq3_-'.ljust(43, 'v')}"
MISPLACED = [
    "envelopes: {{a: }}\nkeys: [{{name: x, key: {key}, envelope: a}}]",
    "envelopes: {{a: }}\nkeys: [{{name: '{key}!', sha256: x, envelope: a}}]",
    "envelopes: {{a: }}\nkeys: [{{name: x, sha256: {key}, envelope: a}}]",
    "envelopes: {{a: }}\nkeys: [{{name: x, sha256: '" + HASH + "', envelope: {key}}}]",
    "envelopes: {{a: }}\nkeys: [{{name: x, sha256: '" + HASH + "', envelope: a, expires: {key}}}]",
    "envelopes: {{a: }}\nkeys: [{{name: x, key: {key}, key: {key}}}]",
    "envelopes: {{a: }}\nkeys: [*{key}]",
    "envelopes: {{a: }}\nkeys: [!{key} x]",
    "envelopes: {{a: }}\nkeys: {key}",
    "envelopes: {{a: }}\nkeys: [{key}]",
    "{key}",
]
MISPLACED_OF_OURS = [
    "envelopes: {{a: }}\nkeys: [{{name: {key}, sha256: '" + HASH + "', envelope: a}}]",
    "envelopes: {{a: }}\nkeys: [{{name: x, caller: {key}, sha256: '" + HASH + "', envelope: a}}]",
    "envelopes: {{a: }}\nkeys: [{{name: x, {key}, envelope: a}}]",
    "envelopes: {{{key}: }}",
    "envelopes: {{a: {{{key}: }}}}",
    "envelopes: {{a: {{modes: [{key}]}}}}",
    "envelopes: {{a: {{presets: [{key}]}}}}",
    "envelopes: {{a: {{candidates: {key}}}}}",
    "envelopes: {{a: }}\nanonymous: {key}",
    "envelopes: {{a: }}\nkey: {key}",
]


def test_keys_that_are_made_here_are_known_as_such() -> None:
    assert is_key(new_key())
    assert is_key(KEY_OF_OURS)
    assert not is_key("rheostat-web")


@pytest.mark.parametrize(
    ("text", "key"),
    [(text, OWN_KEY) for text in MISPLACED] + [(text, KEY_OF_OURS) for text in MISPLACED + MISPLACED_OF_OURS],
)
def test_a_key_in_the_wrong_place_is_a_fault_that_does_not_quote_it(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(PolicyError) as refusal:
        read_policy(write(tmp_path, text.format(key=key)))
    assert key not in "".join(traceback.format_exception(refusal.value))
    assert key.removeprefix(PREFIX)[:12] not in str(refusal.value)


def test_names_that_the_server_does_not_have_are_faults(tmp_path: Path) -> None:
    path = write(tmp_path, "envelopes:\n  a:\n    models: [demo, lost]\n    adapters: [warm]")
    read_policy(path)
    with pytest.raises(PolicyError, match=r":3: .*no model 'lost'; there are: demo") as refusal:
        read_policy(path, Known(models=["demo"], adapters=["cold"]))
    assert ":4: envelopes.a.adapters.0: there is no adapter 'warm'" in str(refusal.value)


def test_a_file_that_is_not_there_is_a_policy_error(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none.yaml cannot be read: No such file"):
        read_policy(tmp_path / "none.yaml")

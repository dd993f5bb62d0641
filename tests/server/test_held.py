"""What a request is held to is held under every name that engines know it by."""

from typing import Any

import pytest

from rheostat_server.contract.dials import Dials
from rheostat_server.errors import InvalidField, NotPermitted
from rheostat_server.held import HELD
from rheostat_server.policy import Envelope, InForce, resolve_body

Body = dict[str, Any]
CHILDREN = Envelope("children", max_tokens=300, max_candidates=4)
BOTH = ("max_tokens", "max_completion_tokens")


def sent(body: Body, envelope: Envelope = CHILDREN, mode: str = "adapter") -> Body:
    """What of a body goes to the engine."""
    return resolve_body(body, InForce({}, Dials(safety=1.0, helpfulness=1.0), (), mode, envelope=envelope))[0]


def fault(body: Body, envelope: Envelope = CHILDREN, mode: str = "adapter") -> InvalidField:
    with pytest.raises(InvalidField) as caught:
        sent(body, envelope, mode)
    return caught.value


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("value", [0, -1, -(2**63), 1.0, "5", True, [1]])
def test_a_number_of_tokens_that_is_none_is_refused_where_tokens_are_limited(name: str, value: object) -> None:
    refused = fault({name: value})
    assert refused.param == name
    assert "at least 1" in refused.message
    assert sent({name: value}, Envelope()) == {name: value}


@pytest.mark.parametrize(
    ("asked", "goes"),
    [
        ({}, {"max_tokens": 300}),
        ({"max_tokens": None}, {"max_tokens": 300}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5, "max_completion_tokens": 5}),
        ({"max_completion_tokens": 900}, {"max_tokens": 300, "max_completion_tokens": 300}),
        ({"max_tokens": 9, "max_completion_tokens": 5}, {"max_tokens": 5, "max_completion_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 900}, {"max_tokens": 5, "max_completion_tokens": 5}),
    ],
)
def test_where_tokens_are_limited_every_name_of_the_limit_that_is_sent_says_the_same(asked: Body, goes: Body) -> None:
    assert sent(asked) == goes
    assert sent(asked, Envelope()) == asked


@pytest.mark.parametrize("name", [name for name, (kind, _) in HELD.items() if kind == "tokens"])
def test_another_name_of_the_limit_is_refused(name: str) -> None:
    refused = fault({"max_tokens": 300, name: 9999})
    assert refused.param == name
    assert "envelope 'children' allows 300 tokens" in refused.message
    assert sent({name: 9999}, Envelope()) == {name: 9999}


def test_an_answer_must_not_have_to_be_longer_than_it_may_be() -> None:
    assert fault({"min_tokens": 301}).param == "min_tokens"
    assert fault({"min_tokens": 6, "max_completion_tokens": 5}).param == "min_tokens"
    assert fault({"min_tokens": -1}).param == "min_tokens"
    assert sent({"min_tokens": 300})["min_tokens"] == 300


@pytest.mark.parametrize("name", [name for name, (kind, _) in HELD.items() if kind == "choices"])
def test_no_more_answers_are_drawn_than_n_says(name: str) -> None:
    assert fault({name: 2}).param == name
    assert fault({name: 5, "n": 9}).param == name
    assert fault({name: "1"}).param == name
    assert sent({name: 3, "n": 3})[name] == 3
    assert sent({name: 1})[name] == 1


@pytest.mark.parametrize("name", [name for name, (kind, _) in HELD.items() if kind == "model"])
def test_nothing_else_answers_than_the_plan_says(name: str) -> None:
    assert fault({name: ["another"]}).param == name
    assert fault({name: ["another"]}, Envelope(models=("demo",)), mode="off").param == name
    assert fault({name: ["another"]}, Envelope(adapters=("control",)), mode="off").param == name
    assert sent({name: ["another"]}, Envelope(), mode="off") == {name: ["another"]}
    assert sent({name: None}, Envelope()) == {name: None}


@pytest.mark.parametrize(
    "name", ["Messages", "MODEL", "N", "Max_Tokens", "max_to\u212aens", "me\u017f\u017fages", "Options"]
)
def test_a_name_that_only_some_servers_tell_from_ours_is_refused(name: str) -> None:
    assert fault({name: 1}, Envelope(), mode="off").param == name


def test_a_rejecting_envelope_refuses_more_tokens_under_either_name() -> None:
    rejecting = Envelope("lab", max_tokens=300, outside="reject")
    for name in BOTH:
        with pytest.raises(NotPermitted, match=f"{name} is 301; envelope 'lab' allows at most 300"):
            sent({name: 301}, rejecting)

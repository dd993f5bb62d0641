"""A request as the worker knows it."""

from collections.abc import Sequence
from dataclasses import dataclass

from rheostat_server.engines.embedded.lora import Mix
from rheostat_server.engines.embedded.mailbox import Mailbox
from rheostat_server.engines.embedded.sampling import Sampling


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One request for the batch. `mix` are the weights of the adapters, empty for the base model.

    `top_logprobs` is None where none are wanted.
    `barred_at_first` are the tokens that it must not take before `min_tokens`; `stop_ids` those that end an answer.
    A job that is not streamed tells each candidate as one piece. `mailboxes` has one for each candidate; they may be
    one and the same. An urgent job goes before the others.
    """

    prompt: Sequence[int]
    candidates: int
    mix: Mix
    sampling: Sampling
    seed: int | None
    max_tokens: int
    min_tokens: int
    stop_ids: frozenset[int]
    barred_at_first: frozenset[int]
    stop_texts: Sequence[str]
    top_logprobs: int | None
    streamed: bool
    mailboxes: Sequence[Mailbox]
    urgent: bool = False

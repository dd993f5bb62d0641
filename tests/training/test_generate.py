"""Sampling from a random model: against the library's own generation, and through kills."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rheostat_server.contract.dials import Dials
from rheostat_training.conditioning import prompt_text, token_ids
from rheostat_training.generate import SamplingPlan, generate
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.resume import AnotherRun
from rheostat_training.rows import Prompt, Request, Sample, read_rows
from rheostat_training.samplers.local import LocalSampler, draw, sample, sample_ids

PLAN = SamplingPlan(samples=3, max_new_tokens=12, batch_rows=6, seed=3)
QUIET = Progress.silent()


def requests_of(prompts: dict[str, Prompt], dials: Dials | None = None) -> list[Request]:
    return [Request(prompt.id, prompt.messages, dials) for prompt in prompts.values()]


def ids_of(model: LoadedModel, prompts: dict[str, Prompt]) -> list[tuple[int, ...]]:
    return token_ids(
        model.tokenizer, [prompt_text(model.tokenizer, prompt.messages, None) for prompt in prompts.values()]
    )


def test_greedy_answers_are_those_of_the_library(model: LoadedModel, prompts: dict[str, Prompt]) -> None:
    plan = SamplingPlan(samples=2, temperature=0.0, max_new_tokens=20)
    rows = sample_ids(model, ids_of(model, prompts), plan, torch.Generator())
    for number, prompt in enumerate(ids_of(model, prompts)):
        ids = torch.tensor([prompt])
        wanted = model.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20)
        answer = wanted[0, len(prompt) :].tolist()
        assert rows[2 * number].ids == rows[2 * number + 1].ids == answer


def test_prompts_of_several_lengths_answer_in_one_batch_as_they_do_alone(
    model: LoadedModel, prompts: dict[str, Prompt]
) -> None:
    plan = SamplingPlan(samples=1, temperature=0.0, max_new_tokens=16)
    ids = ids_of(model, prompts)
    assert len({len(prompt) for prompt in ids}) > 1
    together = sample_ids(model, ids, plan, torch.Generator())
    alone = [sample_ids(model, [prompt], plan, torch.Generator())[0] for prompt in ids]
    assert [row.ids for row in together] == [row.ids for row in alone]


@pytest.mark.parametrize("place", [0, 4])
def test_rows_that_finish_leave_the_batch_and_the_others_go_on(
    model: LoadedModel, prompts: dict[str, Prompt], place: int
) -> None:
    """At place 0 they leave before the first token is read, when the cache has just been expanded."""
    plan = SamplingPlan(samples=2, temperature=0.0, max_new_tokens=16)
    ids = ids_of(model, prompts)
    free = sample_ids(model, ids, plan, torch.Generator())
    assert len({row.ids[place] for row in free}) > 1
    last = model.tokenizer.eos_token_id = free[0].ids[place]
    for row, before in zip(sample_ids(model, ids, plan, torch.Generator()), free, strict=True):
        end = before.ids.index(last) + 1 if last in before.ids else len(before.ids)
        assert row.ids == before.ids[:end]


def test_an_end_of_a_turn_that_only_the_generation_settings_name_ends_an_answer(
    model: LoadedModel, prompts: dict[str, Prompt]
) -> None:
    plan = SamplingPlan(samples=1, temperature=0.0, max_new_tokens=16)
    [free, *_] = sample_ids(model, ids_of(model, prompts), plan, torch.Generator())
    last = free.ids[4]
    model.model.generation_config.eos_token_id = [model.tokenizer.eos_token_id, last]
    [answer, *_] = sample(model, requests_of(prompts), plan)
    assert answer.finished
    assert answer.tokens == free.ids.index(last) + 1


def test_a_prompt_that_leaves_no_room_for_an_answer_is_refused_by_its_id(model: LoadedModel) -> None:
    texts = {"short": "how", "long": "how warm is the morning " * 60}
    asked = requests_of({id: Prompt.user(id, text) for id, text in texts.items()})
    with pytest.raises(ValueError, match=r"1 of 2 prompts leave no room .* 'long' of \d+ tokens: .* writes 256"):
        sample(model, asked, PLAN)


def test_draws_follow_the_probabilities() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.2, 0.0])
    drawn = draw(probabilities.log().expand(20_000, 4), SamplingPlan(), torch.Generator().manual_seed(0))
    shares = drawn.bincount(minlength=4) / len(drawn)
    torch.testing.assert_close(shares, probabilities, atol=0.015, rtol=0)
    assert shares[3] == 0


def test_top_p_draws_from_the_likeliest_tokens_alone() -> None:
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(1000, 3)
    drawn = draw(logits, SamplingPlan(top_p=0.7), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {1, 2}


def test_each_request_gets_its_samples_in_order_with_its_dials(model: LoadedModel, prompts: dict[str, Prompt]) -> None:
    dials = Dials(safety=0.5, helpfulness=1.0)
    rows = sample(model, requests_of(prompts, dials), PLAN)
    assert [(row.prompt_id, row.sample) for row in rows] == [(id, number) for id in prompts for number in range(3)]
    assert {row.dials for row in rows} == {dials}


def test_the_same_seed_gives_the_same_answers_and_another_seed_does_not(
    model: LoadedModel, prompts: dict[str, Prompt]
) -> None:
    one, again = (sample(model, requests_of(prompts), PLAN) for _ in range(2))
    other = sample(model, requests_of(prompts), SamplingPlan(samples=3, max_new_tokens=12, batch_rows=6, seed=4))
    assert one == again
    assert [row.answer for row in one] != [row.answer for row in other]


def test_the_files_rows_are_those_made_in_memory(
    tmp_path: Path, model: LoadedModel, prompts: dict[str, Prompt]
) -> None:
    path = generate(LocalSampler(model), requests_of(prompts), PLAN, tmp_path, progress=QUIET)
    in_memory = sample(model, requests_of(prompts), PLAN)
    assert sorted(map(repr, read_rows(path, Sample))) == sorted(map(repr, in_memory))


def test_a_run_that_dies_after_a_shard_goes_on_and_ends_with_the_same_file(
    tmp_path: Path, model: LoadedModel, prompts: dict[str, Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = generate(LocalSampler(model), requests_of(prompts), PLAN, tmp_path / "whole", progress=QUIET).read_bytes()
    original = LocalSampler.answer

    def dies(sampler: LocalSampler, requests: Sequence[Request], plan: SamplingPlan, number: int) -> list[Sample]:
        if number == 1:
            raise KeyboardInterrupt
        return original(sampler, requests, plan, number)

    monkeypatch.setattr(LocalSampler, "answer", dies)
    with pytest.raises(KeyboardInterrupt):
        generate(LocalSampler(model), requests_of(prompts), PLAN, tmp_path / "killed", progress=QUIET)
    assert len(list((tmp_path / "killed" / "shards").glob("*.jsonl"))) == 1
    monkeypatch.setattr(LocalSampler, "answer", original)
    assert (
        generate(LocalSampler(model), requests_of(prompts), PLAN, tmp_path / "killed", progress=QUIET).read_bytes()
        == whole
    )


def test_a_folder_with_samples_of_another_plan_is_refused(
    tmp_path: Path, model: LoadedModel, prompts: dict[str, Prompt]
) -> None:
    generate(LocalSampler(model), requests_of(prompts), PLAN, tmp_path, progress=QUIET)
    with pytest.raises(AnotherRun, match="plan"):
        generate(LocalSampler(model), requests_of(prompts), SamplingPlan(samples=2), tmp_path, progress=QUIET)


def test_a_folder_with_samples_of_another_model_is_refused(
    tmp_path: Path, model: LoadedModel, prompts: dict[str, Prompt]
) -> None:
    generate(LocalSampler(model), requests_of(prompts), PLAN, tmp_path, progress=QUIET)
    with torch.no_grad():
        model.model.model.norm.weight[0] += 0.5
    with pytest.raises(AnotherRun, match="model"):
        generate(LocalSampler(model), requests_of(prompts), PLAN, tmp_path, progress=QUIET)


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": 0}])
def test_a_plan_that_cannot_be_is_refused_by_the_fields_name(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingPlan(**wrong)  # type: ignore[arg-type]


def test_least_is_the_lowest_probability_past_the_tokens_that_settle_the_answer(
    model: LoadedModel, prompts: dict[str, Prompt]
) -> None:
    plan = SamplingPlan(samples=2, max_new_tokens=10, settling_tokens=3, seed=2)
    [prompt] = ids_of(model, prompts)[:1]
    for row in sample_ids(model, [prompt], plan, torch.Generator().manual_seed(1)):
        with torch.inference_mode():
            logs = model.model(torch.tensor([[*prompt, *row.ids]])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        chosen = logs[torch.arange(len(row.ids)), torch.tensor(row.ids)].exp()
        assert row.least == pytest.approx(chosen[3:].min().item(), rel=1e-4)


def test_an_answer_that_ends_before_it_settles_has_no_slip(model: LoadedModel, prompts: dict[str, Prompt]) -> None:
    rows = sample(model, requests_of(prompts), SamplingPlan(samples=1, max_new_tokens=4, settling_tokens=4))
    assert {row.least for row in rows} == {1.0}

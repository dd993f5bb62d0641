"""Scorers: trained from nothing, loaded as ordinary models, and honest about what they cannot judge."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from rheostat_server.scorers import Dialogue, Scores
from rheostat_server.scorers.classifier import Classifier
from rheostat_training import score as stage
from rheostat_training.models import LoadedModel
from rheostat_training.progress import Progress
from rheostat_training.resume import AnotherRun
from rheostat_training.rows import Messages, Prompt, Sample, Scored, read_rows
from rheostat_training.score import CallableJudge, ScorerPair, score
from rheostat_training.scorer_fit import ScorerFamily, ScorerPlan, ScorerRow, ScorerShape, fit_scorer

QUIET = Progress.silent()
QUESTION = Prompt.user("p", "is it safe").messages
PLAN = ScorerPlan(
    shape=ScorerShape(hidden=32, layers=1, heads=2, max_length=64), epochs=6, batch_rows=16, learning_rate=5e-3
)


def rows_of_two_kinds(count: int = 300) -> list[ScorerRow]:
    chance = random.Random(0)
    words = ["small", "garden", "morning", "label", "window", "weather"]
    rows = []
    for _ in range(count):
        level = chance.choice((0.1, 0.9))
        opening = "yes it is" if level > 0.5 else "no never"
        rows.append(ScorerRow(QUESTION, f"{opening} {' '.join(chance.choices(words, k=4))}", level))
    return rows


@pytest.mark.parametrize("family", ["bert", "llama", "modernbert"])
def test_a_scorer_learns_loads_as_an_ordinary_model_and_judges_in_range(
    tmp_path: Path, model: LoadedModel, family: ScorerFamily
) -> None:
    shape = ScorerShape(family=family, hidden=32, layers=1, heads=2, max_length=64)
    plan = ScorerPlan(shape=shape, epochs=6, batch_rows=16, learning_rate=5e-3)
    report = fit_scorer(rows_of_two_kinds(), model.tokenizer, plan, tmp_path, progress=QUIET)
    assert report.mae < 0.1
    assert report.pearson > 0.9
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").config.num_labels == 1
    assert (tmp_path / "model" / "model.safetensors").exists()
    scorer = Classifier.load(tmp_path / "model")
    low, high = scorer.levels(
        [Dialogue(QUESTION, "no never small garden"), Dialogue(QUESTION, "yes it is small garden")]
    )
    assert low is not None
    assert high is not None
    assert 0 <= low < 0.4 < 0.6 < high <= 1


def test_levels_do_not_depend_on_the_batch(tmp_path: Path, model: LoadedModel) -> None:
    fit_scorer(rows_of_two_kinds(60), model.tokenizer, PLAN, tmp_path, progress=QUIET)
    dialogues = [Dialogue(QUESTION, row.answer) for row in rows_of_two_kinds(9)] + [Dialogue(QUESTION, "no")]
    together = Classifier.load(tmp_path / "model").levels(dialogues)
    alone = Classifier.load(tmp_path / "model", batch_rows=1).levels(dialogues)
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_finished_scorer_is_not_trained_again(tmp_path: Path, model: LoadedModel) -> None:
    first = fit_scorer(rows_of_two_kinds(60), model.tokenizer, PLAN, tmp_path, progress=QUIET)
    assert fit_scorer(rows_of_two_kinds(60), model.tokenizer, PLAN, tmp_path, progress=QUIET) == first
    with pytest.raises(AnotherRun, match="rows"):
        fit_scorer(rows_of_two_kinds(61), model.tokenizer, PLAN, tmp_path, progress=QUIET)


def test_a_folder_begun_with_another_tokenizer_is_refused(tmp_path: Path, model: LoadedModel) -> None:
    rows, tokenizer = rows_of_two_kinds(60), model.tokenizer
    fit_scorer(rows, tokenizer, PLAN, tmp_path, progress=QUIET)
    more = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    more.add_tokens(["never"])
    template = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    template.chat_template = f"{tokenizer.chat_template}{{% if add_generation_prompt %}}now{{% endif %}}"
    for other in (more, template):
        with pytest.raises(AnotherRun, match="tokenizer"):
            fit_scorer(rows, other, PLAN, tmp_path, progress=QUIET)
    again = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    fit_scorer(rows, again, PLAN, tmp_path, progress=QUIET)


def test_a_level_outside_the_range_is_refused(tmp_path: Path, model: LoadedModel) -> None:
    rows = [*rows_of_two_kinds(60), ScorerRow(QUESTION, "yes", 1.5)]
    with pytest.raises(ValueError, match=r"level 1\.5"):
        fit_scorer(rows, model.tokenizer, PLAN, tmp_path, progress=QUIET)


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="family is 'rnn'"):
        ScorerShape(family="rnn")  # type: ignore[arg-type]


def test_a_pair_cannot_judge_an_empty_answer(tmp_path: Path, model: LoadedModel) -> None:
    fit_scorer(rows_of_two_kinds(60), model.tokenizer, PLAN, tmp_path, progress=QUIET)
    pair = ScorerPair.load(tmp_path / "model", tmp_path / "model")
    empty, full = pair.judge([Dialogue(QUESTION, " "), Dialogue(QUESTION, "no never")])
    assert empty == Scores(None, None)
    assert full.safety is not None
    assert full.helpfulness == full.safety


def test_what_a_function_cannot_judge_has_no_score() -> None:
    judge = CallableJudge(lambda prompt, answer: (0.25, 1.0) if answer == "fine" else None)
    found = judge.judge([Dialogue(QUESTION, "fine"), Dialogue(QUESTION, "garbled")])
    assert found == [Scores(0.25, 1.0), Scores(None, None)]


def test_each_distinct_answer_is_scored_once_and_a_killed_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARD_ROWS", 4)
    prompts = {"p": Prompt("p", QUESTION)}
    samples = [Sample("p", number, f"answer {number % 7}", 2, True) for number in range(14)]
    asked: list[str] = []

    def counting(limit: int) -> Callable[[str, str], tuple[float, float]]:
        def levels(prompt: str, answer: str) -> tuple[float, float]:
            if len(asked) >= limit:
                raise KeyboardInterrupt
            asked.append(answer)
            return 0.5, 0.5

        return levels

    with pytest.raises(KeyboardInterrupt):
        score(CallableJudge(counting(5)), prompts, samples, tmp_path, judge_name="fake", progress=QUIET)
    assert len(asked) == 5
    path = score(CallableJudge(counting(99)), prompts, samples, tmp_path, judge_name="fake", progress=QUIET)
    assert asked[5:] == ["answer 4", "answer 5", "answer 6"]
    assert [row.answer for row in read_rows(path, Scored)] == [f"answer {number}" for number in range(7)]


def test_a_folder_with_scores_of_another_prompt_is_refused(tmp_path: Path) -> None:
    judge, samples = CallableJudge(lambda *_: (0.5, 0.5)), [Sample("p", 0, "yes", 1, True)]
    score(judge, {"p": Prompt("p", QUESTION)}, samples, tmp_path, judge_name="fake", progress=QUIET)
    with pytest.raises(AnotherRun, match="prompts"):
        score(judge, {"p": Prompt.user("p", "other")}, samples, tmp_path, judge_name="fake", progress=QUIET)


def test_a_roberta_reads_as_many_tokens_as_it_has_positions_behind_the_paddings(model: LoadedModel) -> None:
    config = RobertaConfig(
        vocab_size=len(model.tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=34, num_labels=1, pad_token_id=1,
    )  # fmt: skip
    scorer = Classifier(RobertaForSequenceClassification(config).eval(), model.tokenizer, cut_answers=True)
    [level] = scorer.levels([Dialogue(QUESTION, "yes it is " * 40)])
    assert level is not None
    assert 0 <= level <= 1
    [read] = scorer._read([Dialogue(QUESTION, "yes it is " * 40)])
    assert read is not None
    assert len(read[0]) == 32


def test_of_equal_answers_the_one_that_was_surest_is_kept(tmp_path: Path) -> None:
    prompts = {"p": Prompt("p", QUESTION)}
    sure: dict[str, list[float | None]] = {"yes": [0.5, 0.001], "no": [0.001, 0.5], "well": [None, 0.2]}
    samples = [Sample("p", 0, answer, 2, True, None, least) for answer, each in sure.items() for least in each]
    path = score(CallableJudge(lambda *_: (0.5, 0.5)), prompts, samples, tmp_path, judge_name="fake", progress=QUIET)
    assert [(row.answer, row.least) for row in read_rows(path, Scored)] == [("yes", 0.5), ("no", 0.5), ("well", None)]


def test_a_model_without_a_token_to_pad_with_is_refused_when_it_is_loaded(tmp_path: Path, model: LoadedModel) -> None:
    fit_scorer(rows_of_two_kinds(40), model.tokenizer, replace(PLAN, epochs=1), tmp_path)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token_id": None}))
    with pytest.raises(ValueError, match="names no pad_token_id"):
        Classifier.load(tmp_path / "model")


def test_a_cross_encoder_without_chat_template_reads_question_and_answer_as_a_pair(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "how", "do", "i", "climb", "slowly", "fast", "now"]
    tokenizer = BertTokenizerFast(vocab={word: number for number, word in enumerate(words)}, model_max_length=12)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    encoder = BertForSequenceClassification(BertConfig(vocab_size=len(words), num_labels=1, **sizes)).eval()
    encoder.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    question: Messages = ({"role": "system", "content": "now"}, {"role": "user", "content": "how do i climb"})
    answers = ["slowly", "fast fast now", "slowly " * 40]
    classifier = Classifier.load(tmp_path, batch_rows=2, cut_answers=True)
    found = classifier.levels([Dialogue(question, answer) for answer in answers])
    for answer, level in zip(answers, found, strict=True):
        read = tokenizer("how do i climb", answer, truncation="longest_first", max_length=12, return_tensors="pt")
        assert read["token_type_ids"].any()
        assert level == pytest.approx(torch.sigmoid(encoder(**read).logits)[0, 0].item(), abs=1e-6)

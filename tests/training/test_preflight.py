"""What a run is told before it spends its hours."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rheostat_server import demo
from rheostat_server.scorers.text.folder import PARTS
from rheostat_training import tracking
from rheostat_training.conditioning import prompt_text
from rheostat_training.config import BadConfig, RunConfig, parse_config
from rheostat_training.crew import Crew
from rheostat_training.demo.asking import held_out
from rheostat_training.materials import Materials
from rheostat_training.models import LoadedModel
from rheostat_training.modes import in_mode
from rheostat_training.preflight import DIALS, check_launched, check_run
from rheostat_training.rows import Request
from tests.training.architectures import ARCHITECTURES

NO_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "<{{ message['role'] }}>{{ message['content'] }}<end>{% endfor %}<assistant>"
)
SILENT = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "<{{ message['role'] }}>{{ message['content'] }}<end>{% endif %}{% endfor %}<assistant>"
)
PROMPTS = {"source": {"source": "demo", "count": 6}, "held_out": {"source": "demo", "split": "held-out", "count": 4}}


@pytest.fixture
def base(tmp_path: Path, make_model: Callable[[], LoadedModel]) -> Path:
    loaded = make_model()
    loaded.model.save_pretrained(tmp_path / "base")
    loaded.tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def with_template(base: Path, template: str | None) -> None:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base)
    (base / "chat_template.jinja").unlink()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(base)


def config_of(folder: Path, **changes: object) -> RunConfig:
    return parse_config({
        "base": {"model": str(folder)},
        "prompts": PROMPTS,
        "evaluate": {"prompts": 2, "modes": ["adapter", "prompt"], "sampling": {"max_new_tokens": 64}},
        "calibrate": {"prompts": 2},
        "report_to": "none",
        **changes,
    })  # fmt: skip


@dataclass
class Launched(Crew):
    """Several processes, as far as a run asks."""

    many: bool = True
    sharded: bool = True


def check(config: RunConfig) -> None:
    check_run(config, Materials(config, say=lambda line: None), "export")


def test_a_run_that_can_come_to_its_end_is_let_go(base: Path) -> None:
    check(config_of(base))


@pytest.mark.parametrize(("template", "why"), [(NO_SYSTEM, "System role not supported"), (SILENT, "leaves system")])
def test_a_template_without_a_system_message_is_refused_where_one_is_needed(
    base: Path, template: str, why: str
) -> None:
    with_template(base, template)
    with pytest.raises(BadConfig, match=rf"(?s)the mode 'prompt' of evaluate\.modes put.*{why}"):
        check(config_of(base))
    with pytest.raises(BadConfig, match=r"^generate\.worded put"):
        check(config_of(base, generate={"worded": 1}, evaluate={"prompts": 2, "modes": ["adapter"]}))
    check(config_of(base, evaluate={"prompts": 2, "modes": ["adapter"], "sampling": {"max_new_tokens": 64}}))


def test_a_held_out_conversation_that_the_template_refuses_is_named(base: Path, tmp_path: Path) -> None:
    with_template(base, NO_SYSTEM)
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    rows = [
        {"id": f"row-{n}", "messages": [*turns[n % 2 :][:1], {"role": "user", "content": str(n)}]} for n in range(4)
    ]
    (tmp_path / "held.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    held_out = {"source": str(tmp_path / "held.jsonl")}
    with pytest.raises(BadConfig, match=r"prompt 'row-[02]' of those held out: .*System role not supported"):
        check(config_of(base, prompts={**PROMPTS, "held_out": held_out}, evaluate={"prompts": 2, "modes": ["adapter"]}))


def test_a_model_without_a_chat_template_is_refused(base: Path) -> None:
    with_template(base, None)
    with pytest.raises(BadConfig, match="no chat template"):
        check(config_of(base))


def test_held_out_prompts_that_leave_no_room_are_refused(base: Path) -> None:
    with pytest.raises(BadConfig, match=r"held out: 4 of 4 prompts leave no room .* reads and writes 256"):
        check(config_of(base, evaluate={"prompts": 2, "sampling": {"max_new_tokens": 250}}))


def test_held_out_prompts_must_leave_room_under_the_words_of_every_mode(base: Path) -> None:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base)
    asked = Request("", next(iter(held_out(1).values())).messages, DIALS)
    lengths = {
        mode: len(tokenizer(prompt_text(tokenizer, each.messages, each.written_dials))["input_ids"])
        for mode in ("adapter", "prompt")
        for each in [in_mode(mode, asked)]
    }
    room = 256 - (lengths["adapter"] + lengths["prompt"]) // 2
    sampling = {"prompts": 2, "sampling": {"max_new_tokens": room}}
    check(config_of(base, evaluate={**sampling, "modes": ["adapter"]}))
    with pytest.raises(BadConfig, match=r"held out: 4 of 4 prompts leave no room"):
        check(config_of(base, evaluate={**sampling, "modes": ["adapter", "prompt"]}))


def test_prompts_must_leave_room_under_the_longest_wish(base: Path) -> None:
    generate = {"sampling": {"max_new_tokens": 200}}
    check(config_of(base, generate=generate))
    with pytest.raises(BadConfig, match=r"to train on: 6 of 6 prompts leave no room"):
        check(config_of(base, generate={**generate, "worded": 1}))


def test_a_prompt_to_train_on_that_the_template_refuses_is_named(base: Path, tmp_path: Path) -> None:
    with_template(base, NO_SYSTEM)
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    (tmp_path / "own.jsonl").write_text(json.dumps({"id": "first", "messages": turns}) + "\n")
    config = config_of(base, prompts={**PROMPTS, "source": str(tmp_path / "own.jsonl")})
    with pytest.raises(BadConfig, match=r"prompt 'first' of those to train on: .*System role not supported"):
        check_run(config, Materials(config, say=lambda line: None), "generate")


def test_held_out_prompts_that_hold_all_others_are_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text("".join(f'{{"prompt": "question {n}"}}\n' for n in range(6)))
    own = str(tmp_path / "own.jsonl")
    with pytest.raises(BadConfig, match=r"prompts\.held_out holds all 6 prompts of prompts\.source"):
        check(config_of(base, prompts={"source": own, "held_out": own}))


def test_more_prompts_than_the_demo_world_has_are_refused(base: Path) -> None:
    with pytest.raises(BadConfig, match=r"count is 50,000; the demo world has 38,046 prompts to train on"):
        check(config_of(base, prompts={**PROMPTS, "source": {"source": "demo", "count": 50_000}}))


def test_a_scorer_is_looked_into_before_the_run(base: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "scorer.json").write_text("{}")
    with pytest.raises(BadConfig, match=r"(?s)score\.scorers: .*empty.*score\.scorers: .*half has scorer\.json and no"):
        check(config_of(
            base, score={"scorers": {"safety": str(tmp_path / "empty"), "helpfulness": str(tmp_path / "half")}}
        ))  # fmt: skip
    with pytest.raises(BadConfig, match=r"score\.scorers: .* has 2 labels; a scorer has 1"):
        check(config_of(base, score={"scorers": {"safety": str(base), "helpfulness": str(base)}}))


def test_a_folder_below_the_users_own_is_found(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(base.parent))
    check(config_of(Path("~/base")))
    assert Materials(config_of(Path("~/base")), say=print).base_name == "base"


def test_everything_is_told_at_once(base: Path) -> None:
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**settings, "architectures": ["GPT2LMHeadModel"]}))
    nowhere = {"safety": "/nowhere/s", "helpfulness": "/nowhere/h"}
    config = config_of(base, score={"scorers": nowhere}, report_to="wandbb")
    with pytest.raises(BadConfig) as refused:
        check(config)
    told = str(refused.value)
    assert re.search("report_to is 'wandbb'", told)
    assert re.search("score.scorers: model '/nowhere/s'", told)
    assert re.search("score.scorers: model '/nowhere/h'", told)
    assert re.search("GPT2LMHeadModel", told)


def test_a_refusal_scorer_is_refused_as_the_scorer_of_helpfulness_and_no_other(base: Path, tmp_path: Path) -> None:
    (tmp_path / "scorer.json").write_text('{"schema_version": 2, "kind": "refusal"}')
    for name in PARTS:
        (tmp_path / name).touch()
    refusal, other = str(tmp_path), str(demo.bundle_folder() / "judges" / "safety")
    check(config_of(base, score={"scorers": {"safety": refusal, "helpfulness": other}}))
    with pytest.raises(BadConfig, match=r"score\.scorers: helpfulness is given a scorer of kind refusal"):
        check(config_of(base, score={"scorers": {"safety": refusal, "helpfulness": refusal}}))


def test_what_cannot_be_found_hides_nothing_else(tmp_path: Path) -> None:
    prompts = {"source": str(tmp_path / "none.jsonl"), "held_out": 0.5}
    with pytest.raises(BadConfig) as refused:
        check(config_of(tmp_path / "nowhere", prompts=prompts, report_to="wandbb"))
    told = str(refused.value)
    assert [bool(re.search(each, told)) for each in ("none.jsonl", "nowhere", "wandbb")] == [True, True, True]


def test_the_demo_worlds_scorers_are_warned_of_where_the_prompts_are_others(base: Path, tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text("".join(f'{{"prompt": "question {n}"}}\n' for n in range(3)))
    said: list[str] = []
    config = config_of(base, prompts={**PROMPTS, "source": {"source": str(tmp_path / "own.jsonl")}})
    check_run(config, Materials(config, say=said.append), "score")
    assert any("know the demo world alone" in line for line in said)


@pytest.mark.parametrize(("model_type", "told"), [("mixtral", True), ("llama", False)])
def test_a_base_with_experts_is_told_to_want_a_gpu_to_be_served(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str, told: bool
) -> None:
    [architecture] = [each for each in ARCHITECTURES if each.model_type == model_type]
    architecture.build(base, tmp_path / "other")
    said: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = config_of(tmp_path / "other")
    check_run(config, Materials(config, say=said.append), "fit")
    assert any("has experts" in line for line in said) is told


def test_the_adapter_names_a_base_folder_without_what_is_of_this_machine(base: Path) -> None:
    config = config_of(base)
    assert Materials(config, say=print).base_name == "base"
    named = config_of(base, export={"base_name": "example-org/base"})
    assert Materials(named, say=print).base_name == "example-org/base"


def test_a_revision_of_a_folder_is_refused(base: Path) -> None:
    with pytest.raises(BadConfig, match=r"base\.revision is 'v2'"):
        check(config_of(base, base={"model": str(base), "revision": "v2"}))


def test_only_the_stages_that_are_asked_for_are_looked_at(base: Path) -> None:
    config = config_of(base, evaluate={"prompts": 2, "judges": {"own": {"safety": "/no", "helpfulness": "/no"}}})
    check_run(config, Materials(config, say=lambda line: None), "fit")
    with pytest.raises(BadConfig, match=r"evaluate\.judges\.own"):
        check(config)


def test_a_launch_that_shards_the_model_is_for_the_fit_alone(base: Path) -> None:
    check_launched(config_of(base), Launched(), "fit")
    check_launched(config_of(base, fit={"loss": "dpo"}), Launched(sharded=False), "export")
    config = config_of(base, base={"quantize": "nf4"}, fit={"loss": "dpo", "anchors": 2}, reinforce={})
    with pytest.raises(BadConfig) as refused:
        check_launched(config, Launched(), "export")
    lines = str(refused.value).splitlines()
    for line, why in zip(lines, ("reinforce", "train fit", "base.quantize", "fit.loss", "fit.anchors"), strict=True):
        assert why in line


def test_a_base_that_is_to_be_sharded_is_loaded_on_the_cpu_in_float32(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = config_of(base)
    assert Materials(config, say=print).loading["device"] == "cuda"
    loading = Materials(config, say=print, sharded=True).loading
    assert (loading["device"], loading["dtype"]) == ("cpu", torch.float32)


def test_prompts_that_leave_no_room_for_reinforces_answers_are_refused(base: Path) -> None:
    check(config_of(base, reinforce={"max_new_tokens": 100}))
    with pytest.raises(
        BadConfig, match=r"^learnt by reinforce: \d of 6 prompts leave no room .* max_new_tokens is 250"
    ):
        check(config_of(base, reinforce={"max_new_tokens": 250}))


def test_reinforce_is_refused_where_torch_sees_several_gpus(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check(config_of(base))
    reinforce = {"max_new_tokens": 100}
    check(config_of(base, base={"model": str(base), "device": "cpu"}, reinforce=reinforce))
    with pytest.raises(BadConfig, match=r"^reinforce runs on one GPU, and torch sees 2: set CUDA_VISIBLE_DEVICES"):
        check(config_of(base, reinforce=reinforce))


def test_any_tracker_of_a_fit_will_do_for_reinforce_too(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["aim"])
    check(config_of(base, report_to="aim", reinforce={"max_new_tokens": 100}))
    with pytest.raises(BadConfig, match=r"^report_to is 'tensorboard', which is not installed"):
        check(config_of(base, report_to="tensorboard", reinforce={"max_new_tokens": 100}))

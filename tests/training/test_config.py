"""A run's configuration: defaults, overrides, and every error at once with the nearest known key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from rheostat_training.config import BadConfig, RunConfig, as_values, parse_config, read_config, write_config
from rheostat_training.prompts import PromptSource

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert read_config(write(tmp_path / "empty.yaml", "")) == RunConfig()


def test_a_section_changes_only_the_keys_that_it_names() -> None:
    config = parse_config({"evaluate": {"sampling": {"max_new_tokens": 12}}})
    assert config.evaluate.sampling.max_new_tokens == 12
    assert config.evaluate.sampling.temperature == RunConfig().evaluate.sampling.temperature
    assert config.evaluate.levels == RunConfig().evaluate.levels


def test_every_error_is_told_at_once_with_the_nearest_known_key() -> None:
    with pytest.raises(BadConfig) as refused:
        parse_config({
            "fitt": {},
            "fit": {"learnig_rate": 1, "rank": "many", "loss": "hope"},
            "generate": {"sampling": {"sample": 3, "top_p": 7}},
            "evaluate": {"judges": {"other": {"safety": "a", "helpfullness": "b"}}},
        })  # fmt: skip
    text = str(refused.value)
    for told in (
        "fitt: unknown key; did you mean 'fit'?",
        "fit.learnig_rate: unknown key; did you mean 'learning_rate'?",
        "fit.rank is 'many'",
        "fit.loss is 'hope'",
        "generate.sampling.sample: unknown key; did you mean 'samples'?",
        "evaluate.judges.other.helpfullness: unknown key; did you mean 'helpfulness'?",
    ):
        assert told in text


def test_a_value_that_a_plan_refuses_is_told_with_its_section() -> None:
    with pytest.raises(BadConfig, match=r"generate\.sampling: top_p is 7\.0"):
        parse_config({"generate": {"sampling": {"top_p": 7}}})


def test_everything_that_one_section_refuses_is_told_at_once() -> None:
    with pytest.raises(BadConfig) as refused:
        parse_config({
            "fit": {"steps": 0, "rank": 0, "learning_rate": -3, "dropout": 2},
            "evaluate": {
                "prompts": 1, "levels": [0.5, 0.5], "modes": ["prompt", "prompt"], "resamples": 0,
                "sampling": {"samples": 4},
            },
            "score": {"batch_rows": 0},
            "calibrate": {"points": 102, "resamples": 0},
        })  # fmt: skip
    found = [line.split(" is ")[0].split(" are ")[0].strip() for line in str(refused.value).splitlines()]
    assert sorted(found[1:]) == [
        "calibrate: points", "calibrate: resamples",
        "evaluate: levels", "evaluate: modes", "evaluate: modes", "evaluate: prompts", "evaluate: resamples",
        "evaluate: sampling.samples",
        "fit: dropout", "fit: learning_rate", "fit: rank", "fit: steps", "score: batch_rows",
    ]  # fmt: skip
    assert found[0] == "the configuration has 13 errors:"


@pytest.mark.parametrize(
    ("section", "key"), [("fit", "learning_rate"), ("calibrate", "seed"), ("distil", "margin"), ("prompts", "held_out")]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(section: str, key: str, value: float) -> None:
    with pytest.raises(BadConfig, match=rf"{section}[.:].*{key}.* is (nan|inf)"):
        parse_config({section: {key: value}})


def test_a_value_of_two_kinds_is_told_once_and_by_the_files_own_names() -> None:
    with pytest.raises(BadConfig) as refused:
        parse_config({
            "prompts": {"held_out": {"source": "demo", "splitt": "x"}},
            "score": {"scorers": 3},
            "evaluate": {"judges": {"one": "demo-x"}},
        })  # fmt: skip
    first, *rest = str(refused.value).splitlines()
    assert first.endswith("3 errors:")
    assert [line.split(":")[0].split(" is ")[0].strip() for line in rest] == [
        "prompts.held_out.splitt", "score.scorers", "evaluate.judges.one",
    ]  # fmt: skip


def test_a_word_that_yaml_takes_for_a_truth_value_is_explained(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="unless they stand in quotes"):
        read_config(write(tmp_path / "some.yaml", "evaluate: {modes: [adapter, off]}\n"))


def test_a_judges_name_that_no_picture_can_carry_is_refused_before_the_run() -> None:
    with pytest.raises(BadConfig, match=r"evaluate\.judges\.<b>"):
        parse_config({"evaluate": {"judges": {"<b>": "demo-judges"}}})


def test_the_runs_seed_is_that_of_every_section_that_names_none() -> None:
    config = parse_config({"seed": 5, "fit": {"seed": 9}, "reinforce": {}})
    assert (config.generate.sampling.seed, config.distil.seed, config.fit.seed) == (5, 5, 9)
    assert config.reinforce is not None
    assert config.reinforce.seed == 5


@pytest.mark.parametrize("seed", [5, "5", 5.0])
def test_a_seed_is_the_same_in_every_section_however_it_is_written(seed: object) -> None:
    config = parse_config({"seed": seed, "prompts": {"held_out": {"source": "own.jsonl"}}})
    assert isinstance(config.prompts.held_out, PromptSource)
    seeds = (config.seed, config.fit.seed, config.generate.sampling.seed, config.prompts.held_out.seed)
    assert seeds == (5, 5, 5, 5)


def test_a_source_of_prompts_may_be_its_name_alone() -> None:
    prompts = parse_config({"seed": 3, "prompts": {"source": "a.jsonl", "held_out": "b.jsonl"}}).prompts
    assert prompts.source == PromptSource("a.jsonl", seed=3)
    assert prompts.held_out == PromptSource("b.jsonl", seed=3)


def test_an_empty_section_may_be_set_by_its_keys(tmp_path: Path) -> None:
    config = read_config(write(tmp_path / "some.yaml", "reinforce: null\n"), ["reinforce.steps=5"])
    assert config.reinforce is not None
    assert config.reinforce.steps == 5


def test_a_section_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"(?s)the key 'fit' stands twice.*line 2"):
        read_config(write(tmp_path / "some.yaml", "fit: {steps: 5}\nfit: {rank: 3}\n"))
    merged = "generate: {sampling: &one {<<: &none {seed: 1}, seed: 2}}\nevaluate: {sampling: {<<: *one, seed: 3}}\n"
    config = read_config(write(tmp_path / "some.yaml", merged))
    assert (config.generate.sampling.seed, config.evaluate.sampling.seed) == (2, 3)


SERVER = {"engine": "server", "url": "http://127.0.0.1:1/v1", "served_model": "m"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"generate": {"url": "http://127.0.0.1:1"}}, "url is given, and engine is 'transformers'"),
        ({"generate": {"key_variable": "KEY"}}, "key_variable is given"),
        ({"generate": {"logprobs": True}}, "logprobs is given"),
        ({"generate": {**SERVER, "vllm": {"seed": 1}}}, "vllm is given, and engine is 'server'"),
        ({"generate": {"engine": "vllm", "vllm": {"model": "m"}}}, "vllm names model"),
        ({"generate": {**SERVER, "url": "http://127.0.0.1:80o0/v1"}}, "url is no address"),
        ({"generate": {**SERVER, "url": "127.0.0.1:8000/v1"}}, "url (is no address|must begin with http)"),
        ({"generate": SERVER, "distil": {"least_probability": 0.1}}, r"set generate\.logprobs to true"),
        ({"reinforce": {"rank": 8}}, r"reinforce\.rank is 8"),
        ({"reinforce": {"lora_alpha": 8}}, r"reinforce\.lora_alpha is 8"),
    ],
)
def test_what_would_be_taken_and_ignored_is_refused(values: dict[str, object], told: str) -> None:
    with pytest.raises(BadConfig, match=told):
        parse_config(values)
    parse_config({"generate": {**SERVER, "logprobs": True}, "distil": {"least_probability": 0.1}, "reinforce": {}})


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_not_every_generator_takes_is_refused_by_its_section(seed: int) -> None:
    with pytest.raises(BadConfig, match=rf"has 1 error:\n  seed is {seed}: "):
        parse_config({"seed": seed, "reinforce": {}})
    own: dict[str, dict[str, Any]] = {section: {"seed": seed} for section in ("distil", "fit", "reinforce")}
    sampling = {"generate": {"sampling": {"seed": seed}}, "evaluate": {"sampling": {"seed": seed}}}
    with pytest.raises(BadConfig) as refused:
        parse_config({**own, **sampling, "prompts": {"source": {"source": "demo", "seed": seed}}})
    told = [line.split(":")[0].strip() for line in str(refused.value).splitlines()[1:]]
    assert sorted(told) == [
        "distil", "evaluate.sampling", "fit", "generate.sampling", "prompts.source", "reinforce",
    ]  # fmt: skip
    with pytest.raises(BadConfig, match=rf"calibrate\.seed is {seed}; it must be from 0 to "):
        parse_config({"calibrate": {"seed": seed}})


def test_overrides_are_yaml_values_by_their_path(tmp_path: Path) -> None:
    path = write(tmp_path / "some.yaml", "fit: {steps: 10}\n")
    config = read_config(path, ["fit.steps=20", "evaluate.levels=[0, 1]", "base.revision=null"])
    assert (config.fit.steps, config.evaluate.levels, config.base.revision) == (20, (0.0, 1.0), None)


@pytest.mark.parametrize("override", ["fit.steps", "=3", "fit..steps=3", "name.inner=3", "fit.steps=[1"])
def test_an_override_of_another_form_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(BadConfig, match="--set"):
        read_config(write(tmp_path / "some.yaml", "name: mine\n"), [override])


@pytest.mark.parametrize("text", ["- a\n- list\n", "a: [", "\x00"])
def test_a_file_that_holds_no_sections_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadConfig):
        read_config(write(tmp_path / "some.yaml", text))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadConfig, match="cannot be read"):
        read_config(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="nowhere"):
        read_config(tmp_path / "nowhere.yaml")


def test_the_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = parse_config({"seed": 3, "fit": {"loss": "clm"}, "evaluate": {"judges": {"oracle": "demo-oracle"}}})
    assert read_config(write_config(as_values(config), tmp_path / "config.yaml")) == config
    assert parse_config(as_values(config)) == config


def test_prompts_are_held_out_by_share_or_from_a_source_of_their_own() -> None:
    assert parse_config({"prompts": {"held_out": 0.2}}).prompts.held_out == 0.2
    own = parse_config({"prompts": {"held_out": {"source": "demo", "split": "held-out"}}}).prompts.held_out
    assert isinstance(own, PromptSource)
    with pytest.raises(BadConfig, match="held_out is 7"):
        parse_config({"prompts": {"held_out": 7}})


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_is_valid_and_says_how_to_run_it(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert path.name in first
    if "rheostat train run" in first:
        assert read_config(path).name
    else:
        assert yaml.safe_load(path.read_text())

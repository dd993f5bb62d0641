"""The configuration: every method's own settings below the file's, and errors told at once."""

import json
from pathlib import Path

import pytest

from rheostat_training.config import BadConfig
from rheostat_training.equilibrate.config import SETTINGS, as_values, parse_equilibrate, read_equilibrate

MINIATURE = Path(__file__).parent / "miniature.yaml"


@pytest.mark.parametrize("method", SETTINGS)
def test_every_method_has_its_papers_settings_where_a_file_says_nothing(method: str) -> None:
    config = parse_equilibrate({"method": method})
    assert parse_equilibrate(json.loads(json.dumps(as_values(config)))) == config
    if method == "bfpo":
        assert (config.fit.loss, config.fit.tau, config.pairs.aim, config.pairs.alpha) == ("bfpo", 0.01, "bfpo", 0.5)
    if method == "midpo":
        assert (config.fit.beta, config.fit.rank, config.fit.lora_alpha, config.pairs.aim) == (0.1, 16, 32.0, "margin")
        assert config.passes == 3
    if method == "appo":
        assert config.reinforce.masking.rule == "segment"
    assert config.fit.masking.on == (method in ("adpo", "arj"))


def test_a_file_of_prompts_is_drawn_whole_where_no_mixture_is_named() -> None:
    assert parse_equilibrate({"data": {"source": "mixture.jsonl"}}).data.mix == {}
    assert sum(parse_equilibrate({}).data.mix.values()) == 700


def test_a_file_stands_above_the_methods_settings_and_an_override_above_the_file() -> None:
    config = read_equilibrate(MINIATURE, ["fit.steps=9", "fit.masking.delta=0"])
    assert (config.fit.rank, config.fit.steps, config.fit.masking.delta) == (2, 9, 0)
    assert config.data.mix == {"EHD": 2, "IHD": 2, "MHD": 1, "none": 1, "look-alike": 1}


def test_the_runs_seed_is_that_of_every_section_that_names_none() -> None:
    config = parse_equilibrate({"seed": 5, "fit": {"seed": 2}})
    assert (config.data.seed, config.pairs.seed, config.fit.seed, config.generate.sampling.seed) == (5, 5, 2, 5)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"method": "ppo"}, "method is 'ppo'; it must be one of dpo, adpo, arj, bfpo, appo, midpo, safe-patching"),
        ({"method": "adpo", "fit": {"masking": {"rule": "none"}}}, "nothing without them"),
        ({"method": "dpo", "fit": {"loss": "arj"}}, "fit.loss is 'arj'; the loss of dpo is 'dpo'"),
        ({"method": "dpo", "pairs": {"aim": "bfpo"}}, "pairs.aim is 'bfpo'; that of dpo is 'none'"),
        ({"method": "safe-patching", "pairs": {"control_share": 0.3}}, "patches know no control text"),
        ({"method": "appo", "reinforce": {"masking": {"rule": "none"}}}, "a mask is what appo is"),
        ({"method": "appo", "rewards": {"source": "implicit"}}, "that of appo is 'cost-head'"),
        ({"method": "appo", "pairs": {"control_share": 0.3}}, "appo is all under control text"),
        ({"method": "appo", "reinforce": {"levels": [1.0]}}, "an adapter obeys two levels at least"),
        ({"method": "appo", "reinforce": {"levels": [1, 1]}}, "all different"),
        ({"method": "appo", "passes": 2}, "passes is 2.0, and appo makes none"),
        ({"method": "arj", "pairs": {"per_prompt": 3}}, "arj learns from one best answer"),
        ({"method": "midpo", "fit": {"target_modules": None}}, "midpo's router is over experts on down_proj alone"),
        ({"method": "midpo", "name": "n" * 53, "pairs": {"control_share": 0.3}}, "must have 52 characters at most"),
        ({"method": "midpo", "base": {"quantize": "nf4"}}, "base.quantize is 'nf4', which adpo, arj, bfpo, dpo can"),
        ({"method": "bfpo", "pairs": {"order": "safety"}}, "pairs.order is 'safety'; bfpo aims at margins of"),
        ({"pairs": {"alpha": 0.2}}, "pairs.alpha is 0.2, which is of bfpo alone"),
        ({"generate": {"worded": 2}}, "generate.worded is 2"),
        ({"judge": {"batch_rows": 0}}, "batch_rows is 0"),
        (
            {"data": {"source": "mine.jsonl"}, "judge": {"scorers": {"safety": "a", "helpfulness": "b"}}},
            "data.held_out is demo, a world that is invented",
        ),
        ({"data": {"mix": {"EDH": 5}}}, "mix has the group 'EDH'; it must be one of EHD, IHD"),
        ({"data": {"source": "mine.jsonl", "held_out": "mine.jsonl"}}, "no prompts of the demo world"),
        ({"method": "dpo", "fit": {"masking": {"rule": "segment"}}}, "masks go with adpo and arj"),
        ({"pairs": {"ordr": "safety"}}, "pairs.ordr: unknown key; did you mean 'order'"),
        ({"pairs": {"order": "best"}}, "pairs.order"),
        ({"data": {"mix": {"EHD": -1}}}, "data.mix.EHD"),
        ({"data": {"mix": {}}}, "mix is empty and source is demo"),
        ({"measure": {"safe_from": 0}}, "safe_from is 0"),
        ({"data": 3}, "data"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_with_the_field(values: dict[str, object], told: str) -> None:
    with pytest.raises(BadConfig, match=told):
        parse_equilibrate(values)

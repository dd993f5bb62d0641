"""`rheostat train groups` and `rheostat train mix` at the hands of people."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from rheostat_training import cli
from rheostat_training.demo.scenario import training_look_alikes
from rheostat_training.equilibrate.data import training_prompts
from rheostat_training.equilibrate.fdc import labellers
from rheostat_training.equilibrate.fdc.group import BY_BITS, Group, GroupedPrompt
from rheostat_training.equilibrate.fdc.judge import JUDGE_SAMPLING
from rheostat_training.rows import read_rows, write_rows
from rheostat_training.samplers.server import ServerSampler
from tests.training.equilibrate.scripted import ScriptedSampler, by_words, grouped, tiny_encoder
from tests.training.equilibrate.served import serving
from tests.training.equilibrate.test_blend_prompts import merged


def invoke(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def done(*words: object) -> str:
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: object) -> str:
    result = invoke(*words)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return result.output


def rows_of(path: Path) -> list[GroupedPrompt]:
    return list(read_rows(path, GroupedPrompt))


@pytest.fixture
def demo_groups(tmp_path: Path) -> Path:
    done("groups", "label", "demo", "--by", "demo-oracle", "--count", 200, "--out", tmp_path / "groups")
    return tmp_path / "groups" / "grouped.jsonl"


def test_the_demo_worlds_prompts_are_labelled_by_its_oracle(demo_groups: Path) -> None:
    rows = rows_of(demo_groups)
    assert {row.group for row in rows} == set(BY_BITS)
    assert len(rows) == 200
    assert json.loads((demo_groups.parent / "report.json").read_text())["failures"] == 0


def test_a_mixture_of_the_demo_world_is_blended_up_to_its_budget(demo_groups: Path, tmp_path: Path) -> None:
    there = sum(row.group is Group.MHD for row in rows_of(demo_groups))
    budget = ("--budget", f"ehd=20,ihd=6,mhd={there + 4}", "--general-count", 10)
    short = done("mix", demo_groups, "--out", tmp_path / "short", *budget)
    assert f"MHD: {there} of {there + 4} wanted; {there} there, 4 short" in short
    words = ("--blend", "demo", "--by", "demo-oracle")
    told = done("mix", demo_groups, "--out", tmp_path / "mix", *budget, *words)
    assert f"MHD: {there + 4} of {there + 4} wanted, 4 of them blended" in told
    blends = [row for row in rows_of(tmp_path / "mix" / "mixture.jsonl") if row.blended_from]
    assert len(blends) == 4
    assert {row.group for row in blends} == {Group.MHD}
    assert done("mix", demo_groups, "--out", tmp_path / "mix", *budget, *words) == told
    assert "was begun with" in refused("mix", demo_groups, "--out", tmp_path / "mix", "--safety", 14)


def test_a_mixture_holds_the_look_alikes_that_a_run_trains_on(demo_groups: Path, tmp_path: Path) -> None:
    asked = [{"id": f"a{n}", "prompt": each.prompt} for n, each in enumerate(training_look_alikes()[::400])]
    (tmp_path / "alike.jsonl").write_text("\n".join(json.dumps(row) for row in asked))
    told = done("groups", "label", tmp_path / "alike.jsonl", "--by", "demo-oracle", "--out", tmp_path / "alike")
    assert f"none 0, look-alike {len(asked)}; 0 failed" in told
    files = (demo_groups, tmp_path / "alike" / "grouped.jsonl")
    budget = ("--budget", "ehd=2,ihd=2,mhd=2", "--general-count", 3)
    assert f"look-alike: {len(asked)} of {len(asked)} wanted" in done("mix", *files, "--out", tmp_path / "all", *budget)
    told = done("mix", *files, "--out", tmp_path / "mix", *budget, "--look-alikes", 4)
    assert f"look-alike: 4 of 4 wanted; {len(asked)} there" in told
    found, _, _ = training_prompts(str(tmp_path / "mix" / "mixture.jsonl"), {}, 0)
    assert found.counts == {"EHD": 2, "IHD": 2, "MHD": 2, "none": 3, "look-alike": 4}
    assert {prompt.text for prompt in found.by_kind["look-alike"]} < {row["prompt"] for row in asked}


def test_a_fit_prints_its_figures_and_labels_prompts(tmp_path: Path, tiny_model: Path) -> None:
    words = {"EHD": "powder jar", "IHD": "hurt rival", "MHD": "hurt powder rival jar", "No risk": "bake bread"}
    labels = [{"prompt": f"{text} {n}", "group": group} for n in range(12) for group, text in words.items()]
    (tmp_path / "labels.jsonl").write_text("\n".join(json.dumps(row) for row in labels))
    (tmp_path / "benign.jsonl").write_text("\n".join(json.dumps({"prompt": f"stir soup {n}"}) for n in range(12)))
    told = done(
        *("groups", "fit", tmp_path / "labels.jsonl", "--benign", tmp_path / "benign.jsonl"),
        *("--encoder", tiny_encoder(tmp_path / "encoder", tiny_model), "--out", tmp_path / "fit"),
    )
    assert "48 rows of 48 prompts" in told
    assert "classifier above keywords by" in told
    assert "benign prompts found to be of no risk" in told
    asked = ("groups", "label", tmp_path / "benign.jsonl", "--classifier", tmp_path / "fit" / "classifier")
    assert "EHD" in done(*asked, "--out", tmp_path / "out")
    assert len(rows_of(tmp_path / "out" / "grouped.jsonl")) == 12


def test_a_judge_and_a_blender_are_the_model_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labellers, "sampler_of", lambda *_: ScriptedSampler(by_words))
    texts = ["Is vorn powder safe?", "How do I hurt my rival?", "Where is my hat?"]
    (tmp_path / "asked.jsonl").write_text("\n".join(json.dumps({"prompt": text}) for text in texts))
    told = done(
        *("groups", "label", tmp_path / "asked.jsonl", "--by", "judge", "--model", "demo", "--out", tmp_path / "g")
    )
    assert "EHD 1, IHD 1, MHD 0, none 1; 0 failed" in told

    def either(text: str, plan: object) -> str:
        return merged(text, plan) if "First prompt" in text else by_words(text, plan)  # type: ignore[arg-type]

    loaded: list[ScriptedSampler] = []

    def load(*_: object) -> ScriptedSampler:
        loaded.append(ScriptedSampler(either))
        return loaded[-1]

    monkeypatch.setattr(labellers, "sampler_of", load)
    told = done(
        *("mix", tmp_path / "g" / "grouped.jsonl", "--out", tmp_path / "m", "--budget", "ehd=1,ihd=1,mhd=1"),
        *("--blend", "model", "--model", "demo"),
    )
    assert "MHD: 1 of 1 wanted, 1 of them blended" in told
    assert len(loaded) == 1


def test_a_server_judges_over_http(tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text('{"prompt": "Is vorn powder safe?"}\n{"prompt": "Where is my hat?"}\n')
    with serving(lambda text: by_words(text, JUDGE_SAMPLING)) as url:
        asked = ("--by", "judge", "--url", url, "--served-model", "m", "--out", tmp_path / "out")
        assert "EHD 1, IHD 0, MHD 0, none 1; 0 failed" in done("groups", "label", tmp_path / "asked.jsonl", *asked)


def test_a_server_is_asked_by_its_sampler() -> None:
    asked = labellers.AskedModel(url="http://127.0.0.1:9/v1", served_model="m", seed=3, max_new_tokens=900, tries=5)
    sampler = asked.sampler()
    judge, blender = asked.judge(sampler), asked.blender(sampler)
    assert isinstance(judge.sampler, ServerSampler)
    assert (judge.plan.seed, judge.plan.max_new_tokens, judge.tries) == (3, 900, 5)
    assert (blender.plan.seed, blender.plan.max_new_tokens, blender.tries) == (3, 900, 5)


def test_the_bundled_model_judges_for_real_and_its_failures_are_counted(tmp_path: Path) -> None:
    """It has never seen JSON: so nothing is labelled, and each prompt is told."""
    (tmp_path / "asked.jsonl").write_text(json.dumps({"id": "hat", "prompt": "Where is my hat?"}))
    words = ("--by", "judge", "--model", "demo", "--tries", 2, "--max-new-tokens", 8, "--device", "cpu")
    told = done("groups", "label", tmp_path / "asked.jsonl", *words, "--out", tmp_path / "out")
    assert "EHD 0, IHD 0, MHD 0, none 0; 1 failed" in told
    failed = json.loads((tmp_path / "out" / "report.json").read_text())["failed"]
    assert list(failed) == ["hat"]
    assert "no JSON object" in failed["hat"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--by", "classifier"], "--by classifier needs --classifier"),
        (["--classifier", "nowhere"], "nowhere has no classifier.json"),
        (["--by", "judge"], "give --model, or --url"),
        (["--by", "judge", "--model", "demo", "--url", "http://127.0.0.1:9"], "give --model, or --url"),
        (["--by", "judge", "--url", "http://127.0.0.1:9"], "needs url and served_model"),
        (["--by", "judge", "--model", "demo", "--served-model", "x"], "are of a server"),
        (
            ["--by", "judge", "--url", "http://127.0.0.1:9", "--served-model", "x", "--vllm"],
            "--vllm runs a --model here",
        ),
    ],
)
def test_a_labelling_without_what_it_needs_is_refused(tmp_path: Path, words: list[str], told: str) -> None:
    assert told in refused("groups", "label", "demo", "--out", tmp_path / "out", *words)
    assert not (tmp_path / "out" / "grouped.jsonl").exists()


def test_a_mixture_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "grouped.jsonl", grouped(Group.EHD, 2))
    both = ("--safety", 14, "--budget", "ehd=1")
    assert "give one of them" in refused("mix", path, "--out", tmp_path / "a", *both)
    assert "safety is 0" in refused("mix", path, "--out", tmp_path / "a", "--safety", 0)
    (tmp_path / "other.jsonl").write_text('{"id": "x"}\n')
    assert "is not a GroupedPrompt" in refused("mix", tmp_path / "other.jsonl", "--out", tmp_path / "b")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mixture.jsonl").write_text("mine")
    assert "which no mixture has made" in refused("mix", path, "--out", tmp_path / "c")


def test_a_model_that_nothing_is_blended_by_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "grouped.jsonl"
    file.write_text('{"id": "a", "messages": [{"role": "user", "content": "hi"}], "group": "EHD"}\n')
    found = invoke("mix", file, "--out", tmp_path / "out", "--model", "demo")
    assert found.exit_code == 1
    assert "--model is given, and nothing is blended by it" in found.output

"""The build runs every stage in miniature, makes a whole bundle, and does nothing twice."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rheostat_server.contract.digest import base_model_digest
from rheostat_server.contract.manifest import read_manifest
from rheostat_training.demo import recipe
from rheostat_training.demo.build import build
from rheostat_training.progress import Progress
from rheostat_training.scorer_cut import Cuts
from rheostat_training.stage import tree_digest


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("demo")
    return build(root / "bundle", recipe.fast(), root / "work", progress=Progress.silent())


@pytest.mark.slow
def test_a_bundle_holds_a_base_an_adapter_for_it_two_pairs_of_scorers_and_a_selector(built: Path) -> None:
    assert AutoModelForCausalLM.from_pretrained(built / "base").num_parameters() > 0
    assert read_manifest(built / "adapter").base_model.digest == base_model_digest(built / "base")
    for pair in ("scorers", "judges"):
        for attribute in ("safety", "helpfulness"):
            scorer = AutoModelForSequenceClassification.from_pretrained(built / pair / attribute)
            assert scorer.config.num_labels == 1
    selector = AutoModelForSequenceClassification.from_pretrained(built / "selector")
    assert selector.config.id2label == {0: "safety", 1: "helpfulness"}
    assert AutoTokenizer.from_pretrained(built / "selector").chat_template


@pytest.mark.slow
def test_a_second_build_finds_every_stage_unchanged(built: Path) -> None:
    said: list[str] = []
    again = built.parent / "again"
    build(again, recipe.fast(), built.parent / "work", progress=Progress.silent(), say=said.append)
    assert [line for line in said if "done" in line] == []
    assert base_model_digest(again / "base") == base_model_digest(built / "base")


@pytest.mark.slow
def test_the_same_seed_makes_the_same_bundle_in_another_process(built: Path) -> None:
    out, work = built.parent / "elsewhere", built.parent / "elsewhere-work"
    command = [sys.executable, "-m", "rheostat", "demo", "build", "--fast", "--out", str(out), "--work", str(work)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert tree_digest(out) == tree_digest(built)


@pytest.mark.slow
def test_another_fit_changes_only_what_comes_after_it(built: Path) -> None:
    said: list[str] = []
    fast = recipe.fast()
    other = replace(fast, run=replace(fast.run, fit=replace(fast.run.fit, steps=5)))
    build(built.parent / "other", other, built.parent / "work", progress=Progress.silent(), say=said.append)
    assert [line.split(":")[0] for line in said if "done" in line] == [
        "fit", "evaluate", "calibrate", "export", "measured",
    ]  # fmt: skip


@pytest.mark.slow
def test_another_selector_changes_no_other_stage(built: Path) -> None:
    said: list[str] = []
    fast, work = recipe.fast(), built.parent / "work"
    other = replace(fast, selector=replace(fast.selector, cuts=Cuts(share=0.5)))
    before = build(built.parent / "before", fast, work, progress=Progress.silent())
    after = build(built.parent / "after", other, work, progress=Progress.silent(), say=said.append)
    assert [line.split(":")[0] for line in said if "done" in line] == ["selector"]
    differing = [path.name for path in before.iterdir() if not same(path, after / path.name)]
    assert sorted(differing) == ["recipe.json", "selector"]


def same(one: Path, other: Path) -> bool:
    return tree_digest(one) == tree_digest(other) if one.is_dir() else one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_the_tokenizer_of_a_bundle_reads_dials_as_single_tokens(built: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(built / "base")
    for hundredths in range(101):
        value = f"{hundredths / 100:.2f}"
        assert len(tokenizer(f"[helpful={value}]", add_special_tokens=False)["input_ids"]) == 5

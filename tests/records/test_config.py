"""Configs and recipes: sentences for every field, refusals with a line, exact saving, precedence."""

from __future__ import annotations

import importlib
import math
import pkgutil
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

import plaudit
from plaudit.pipelines.rlhf.config import RLHFConfig
from plaudit.records.config import Config, dump_yaml, merge, resolve
from plaudit.records.errors import UserError
from plaudit.records.field_names import FIELD_NAMES, configs_in, keys_called
from plaudit.records.recipes import Recipe, find_recipe, load_recipe, read_yaml
from plaudit.records.sampling import Sampling


class StepConfig(Config):
    lr: float = Field(1e-5, gt=0, description="Adam's step size.")
    kl_coef: float = Field(0.05, description="Weight of the divergence from the reference.")


class DrawConfig(Config):
    called = {"p": "top_p"}  # noqa: RUF012
    refused = {"penalty": "it is forgotten at once: leave it out"}  # noqa: RUF012

    top_p: float = Field(1.0, description="Mass.")


class JobConfig(Config):
    model: str | None = Field(None, description="Folder of the model (null: the embedded one).")
    ppo: StepConfig = Field(StepConfig(lr=3e-4), description="The algorithm.")
    steps: int = Field(10, description="Updates. " * 30)
    draw: DrawConfig | None = Field(None, description="How to draw.")
    kind: Literal["a", "b"] = Field("a", description="One of two.")
    tags: tuple[str, ...] = Field((), description="Free words.")
    table: dict[str, float] = Field({}, description="Numbers by name.")
    folder: Path = Field(Path("runs"), description="Where.")
    greedy: bool = Field(False, description="Take the likeliest token.")


@pytest.fixture
def recipe(tmp_path):
    def write(text):
        path = tmp_path / "rlhf.yaml"
        path.write_text(text)
        return load_recipe(path)

    return write


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("ppo:\n  lr: 1\n  kl_coeff: 3", r"unknown key 'kl_coeff' in ppo \(file .*rlhf.yaml, line 4\); did you mean 'kl_coef'\?$"),
        ("modle: x", r"unknown key 'modle' \(file .*, line 2\); did you mean 'model'\?$"),
        ("zzz: x", r"unknown key 'zzz' \(file .*, line 2\)$"),
        ("ppo:\n  lr: abc", r"ppo.lr = 'abc' \(file .*, line 3\): input should be a valid number"),
        ("ppo: {lr: -1}", r"ppo.lr = -1 \(file .*, line 2\): input should be greater than 0"),
        ("kind: c", r"kind = 'c' \(file .*, line 2\): input should be 'a' or 'b'"),
        ("steps: 1.5", r"steps = 1.5 \(file .*, line 2\): input should be a valid integer"),
        ("ppo:\n  learning_rate: 1", r"unknown key 'learning_rate' in ppo \(file .*, line 3\); learning_rate is called lr here$"),
        ("learning_rate: 1", r"'learning_rate' \(file .*, line 2\); learning_rate is called ppo.lr here$"),
        ("draw: {beta: 1}", r"'beta' in draw \(file .*, line 2\); beta is called ppo.kl_coef here$"),
        ("p: 1", r"'p' \(file .*, line 2\); p is called draw.top_p here$"),
        ("ppo: {p: 1}", r"'p' in ppo \(file .*, line 2\); p is called draw.top_p here$"),
        ("draw: {penalty: 1}", r"'penalty' in draw \(file .*, line 2\); it is forgotten at once: leave it out$"),
        ("penalty: 1", r"'penalty' \(file .*, line 2\); it is forgotten at once: leave it out$"),
        ("lora_r: 1", r"unknown key 'lora_r' \(file .*, line 2\)$"),
        ("ppo: 3\nstps: 1", r"unknown key 'stps' .*\(and 1 more\)$"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_refused_with_file_and_line(recipe, text, sentence):
    with pytest.raises(UserError, match=sentence):
        resolve(JobConfig, recipe("pipeline: job\n" + text))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("steps: 1", "must say what to run by one key such as 'pipeline: rlhf'"),
        ("pipeline: a\nalgorithm: b", "must say what to run by one key"),
        ("pipeline: a\nppo:\n  lr: 1\n  lr: 2", r"line 4: the key 'lr' stands twice \(first in line 3\)"),
        ("pipeline: a\nb: [1,", "line 3: not valid YAML"),
        ("- 1", "must hold keys and values"),
        ("pipeline: a\n? [1]\n: 2", "line 2: a key must be a word"),
    ],
)  # fmt: skip
def test_what_is_not_a_recipe_is_refused(recipe, text, sentence):
    with pytest.raises(UserError, match=sentence):
        recipe(text + "\n")


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UserError, match=r"no recipe 'rlfh'.*did you mean 'rlhf'"):
        load_recipe("rlfh")


@pytest.mark.parametrize(
    ("given", "meant"),
    [("a2c", "control/a2c"), ("q_learning", "mdp/q_learning"), ("dqnn", "control/dqn"),
     ("controll/ppo", "control/ppo"), ("mdp/a2c", "control/a2c"), ("rlfh", "rlhf"),
     ("pomdp", "mdp/pomdp")],
)  # fmt: skip
def test_a_recipe_is_found_by_its_last_part(given, meant):
    with pytest.raises(UserError, match=rf"no recipe '{given}'.*did you mean '{meant}'"):
        find_recipe(given)


def test_a_python_call_is_refused_in_the_same_words():
    with pytest.raises(UserError, match="unknown key 'lrr' in StepConfig; did you mean 'lr'"):
        StepConfig(lrr=1)
    with pytest.raises(UserError, match="unknown key 'kl_coeff' in ppo; did you mean 'kl_coef'"):
        JobConfig(ppo={"kl_coeff": 1})
    with pytest.raises(UserError, match=r"'beta' in StepConfig; beta is called kl_coef here$"):
        StepConfig(beta=1)
    with pytest.raises(UserError, match=r"'init_kl_coef' in JobConfig; .* ppo.kl_coef here$"):
        JobConfig(init_kl_coef=1)
    with pytest.raises(UserError, match=r"'beta' \(the keyword argument beta\); .* ppo.kl_coef"):
        resolve(JobConfig, Recipe("x.yaml", "x", {}), {"beta": 1})
    with pytest.raises(
        UserError, match=r"'repetition_penalty' in Sampling; with it .*leave it out$"
    ):
        Sampling(max_new_tokens=1, repetition_penalty=1.1)


def test_each_name_of_others_leads_to_a_key_that_some_config_has():
    ends = {
        key for kind in every_config() for _, one in configs_in(kind) for key in one.model_fields
    }
    awaited = {"clip_high", "eval_every", "reward", "weights"}
    for name, keys in FIELD_NAMES.items():
        assert keys_called(RLHFConfig, (), name) or set(keys) <= awaited, name
        assert {key.rpartition(".")[2] for key in keys} <= ends | awaited


def test_values_take_their_declared_type(recipe):
    config = resolve(JobConfig, recipe("pipeline: j\nppo: {lr: 1e-5}\nsteps: 1e3\nmodel: 007\ntags: [on, no, 12:30, 1_0]"))  # fmt: skip
    assert config.ppo.lr == 1e-5
    assert config.steps == 1000
    assert isinstance(config.steps, int)
    assert config.tags == ("on", "no", "12:30", "1_0")
    assert JobConfig(ppo={"lr": "1e-5"}).ppo.lr == 1e-5


def test_default_yields_to_file_and_file_to_flag(recipe):
    file = recipe("pipeline: j\nsteps: 20\nppo:\n  kl_coef: 0.5\n")
    config = resolve(JobConfig, file, {"ppo": {"kl_coef": 0.7}})
    assert config.kind == "a"
    assert config.steps == 20
    assert config.ppo == StepConfig(lr=3e-4, kl_coef=0.7)  # lr: the job's default, not the class's


def test_merge_goes_key_by_key_and_changes_nothing():
    low, high = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"c": 4}}
    assert merge(low, high, {"d": {}}) == {"a": {"b": 1, "c": 4}, "d": {}}
    assert low == {"a": {"b": 1, "c": 2}, "d": 3}


def test_a_config_is_frozen_and_its_fields_must_be_described():
    with pytest.raises(ValueError, match="frozen"):
        StepConfig().lr = 1.0
    with pytest.raises(TypeError, match=r"Bare.x needs a description"):

        class Bare(Config):
            x: int = 1


class Documented(Config):
    x: int = 1
    """A sentence below the field."""


def test_a_docstring_below_a_field_is_its_sentence():
    assert Documented.model_fields["x"].description == "A sentence below the field."


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["1e5", "yes", "null", "~", "1_0", "0x1", "a: b", "# no", "- x", "12:30", ".inf", "", "y", "<<", "é", "\x85", "\u2028x", "2001-01-01"]
)  # fmt: skip
configs = st.builds(
    JobConfig,
    model=st.none() | words,
    ppo=st.builds(
        StepConfig,
        lr=st.floats(min_value=0, exclude_min=True),
        kl_coef=st.floats(allow_nan=False),
    ),
    steps=st.integers(-(2**70), 2**70),
    kind=st.sampled_from(["a", "b"]),
    tags=st.lists(words, max_size=4).map(tuple),
    table=st.dictionaries(words, st.floats(allow_nan=False), max_size=3),
    folder=st.sampled_from([Path("a b/c"), Path("/x"), Path("1")]),
    greedy=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(config=configs)
def test_a_saved_config_is_a_recipe_that_gives_it_back(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text(dump_yaml(config, pipeline="job"), encoding="utf-8", newline="\n")
    recipe = load_recipe(path)
    assert recipe.pipeline == "job"
    assert resolve(JobConfig, recipe) == config


def test_a_saved_config_says_what_each_key_means():
    lines = dump_yaml(JobConfig(), pipeline="job").splitlines()
    assert lines[0] == "pipeline: job"
    assert lines[lines.index("  lr: 0.0003") - 1] == "  # Adam's step size."
    assert max(map(len, lines)) <= 100


def test_floats_without_a_dot_and_infinities_are_numbers(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: 1e-5\nb: 2.E+3\nc: .inf\nd: -.5\ne: .nan\nf: e5\ng: 010\nh: '1'\n")
    values, lines = read_yaml(path)
    assert math.isnan(values.pop("e"))
    assert values == {"a": 1e-5, "b": 2e3, "c": math.inf, "d": -0.5, "f": "e5", "g": 10, "h": "1"}
    assert lines[("h",)] == 8


def every_config():
    for module in pkgutil.walk_packages(plaudit.__path__, "plaudit."):
        importlib.import_module(module.name)
    found, open_ = set(), [Config]
    while open_:
        kinds = open_.pop().__subclasses__()
        open_ += kinds
        found.update(kinds)
    return {kind for kind in found if kind.__module__.startswith("plaudit.")}


def test_every_field_of_every_config_has_a_sentence():
    for kind in every_config():
        for name, field in kind.model_fields.items():
            sentence = field.description or ""
            assert len(sentence.split()) >= 2, f"{kind.__name__}.{name}: say what it is"
            assert sentence.strip()[-1] in ".)", f"{kind.__name__}.{name}: end the sentence"

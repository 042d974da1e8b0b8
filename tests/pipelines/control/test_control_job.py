"""Control as a user runs it: the command line, a stop, a misbehaving world, the way back."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import plaudit
from plaudit.cli.main import main
from plaudit.pipelines.control.job import ALGORITHMS, algorithm, load
from plaudit.records.errors import UserError
from plaudit.records.files import read_json, read_jsonl
from plaudit.records.recipes import SHIPPED, load_recipe, shipped_recipes, tuned_recipe
from plaudit.records.runs import RunFolder

SHORT = ["--num-envs", "2", "--num-steps", "64", "--eval-episodes", "4"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def command(*words: str) -> int:
    return main(["run", *words])


def test_a_run_from_the_command_line_to_the_agent(capsys):
    words = ["control/ppo", "--env", "CartPole-v1", "--steps", "1000", "--seed", "3", *SHORT]
    assert command(*words, "--name", "cart") == 0
    said = capsys.readouterr().out
    assert "Recipe: control/ppo/CartPole-v1, tuned for this environment" in said
    assert "plaudit eval runs/cart" in said
    run = RunFolder.open("cart")
    assert (run.path / "report" / "index.html").exists()
    rows = read_jsonl(run.path / "metrics.jsonl")
    assert rows[-1]["step"] == 1024  # whole rounds of 2 x 64 steps
    assert {"rollout/return", "loss/policy", "eval/return"} <= {k for row in rows for k in row}
    config = load_recipe(run.path / "config.yaml").values
    assert config["max_kl"] == 0.02  # from the tuned recipe
    assert config["num_steps"] == 64  # from the flag
    agent = load("cart")
    assert agent.algorithm == "ppo"
    results = read_json(run.path / "results.json")
    returns = [episode.ret for episode in agent.evaluate(100)]
    assert results["eval/return"] == pytest.approx(np.mean(returns))
    best = load("cart", best=True)
    assert best.evaluate(4)


def test_the_generic_recipe_where_none_is_tuned(capsys):
    assert tuned_recipe("control/ppo", "CartPole-v1") == "control/ppo/CartPole-v1"
    assert tuned_recipe("control/ppo", "MyOwn-v0") == "control/ppo"


@pytest.mark.parametrize("name", [r for r in shipped_recipes() if r.startswith("control/")])
def test_every_shipped_recipe_is_one_of_its_algorithm(name):
    recipe = load_recipe(name)
    kind, _ = algorithm(recipe.pipeline.removeprefix("control/"))
    config = kind.model_validate(recipe.values)
    assert name.split("/")[1] == recipe.pipeline.split("/")[1]
    comment = (SHIPPED / f"{name}.yaml").read_text().splitlines()[0]
    assert comment.startswith("# ")
    if name.count("/") > 1 and "env_options" not in recipe.values:
        assert config.env == name.split("/", 2)[2]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_has_a_generic_recipe(name):
    assert load_recipe(f"control/{name}").pipeline == f"control/{name}"
    assert algorithm(name)[0].model_fields["steps"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["control/ppo", "--env", "CartPole-v9"], "CartPole-v9"),
        (["control/ppo", "--env", "Cartpole-v1"], "did you mean 'CartPole-v1'"),
        (["control/poo"], "no recipe 'control/poo'"),
        (["control/ppo", "--env", "nowhere.py:Mine-v0"], "nowhere.py does not exist"),
        (["control/dqn", "--env", "Pendulum-v1"], "discrete"),
        (["control/sac", "--env", "CartPole-v1"], "box"),
    ],
)
def test_what_cannot_be_run_is_one_sentence(capsys, words, fault):
    assert command(*words, "--name", "x") == 2
    said = capsys.readouterr().err
    assert fault in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) <= 2
    assert not Path("runs/x/checkpoints").exists()


WORLD = """
import gymnasium, numpy
from gymnasium import spaces

class Mine(gymnasium.Env):
    observation_space = spaces.Box(-1, 1, (2,), numpy.float32)
    action_space = spaces.Discrete(2)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {{}}
    def seen(self):
        return self.np_random.uniform(-1, 1, 2).astype(numpy.float32)
    def step(self, action):
        self.t += 1
        reward = {reward}
        return self.seen(), reward, self.t == 20, False, {{}}

count = 0
gymnasium.register("Mine-v0", Mine)
"""


def test_a_world_that_misbehaves_is_named_and_the_run_goes_on_once_it_is_mended(tmp_path):
    """In a process of its own, as the mended file must be read again."""
    path = tmp_path / "mine.py"
    path.write_text(WORLD.format(reward="float('nan') if bump() > 900 else float(action)") + BUMP)
    words = [*PLAUDIT, "run", "control/ppo", "--env", "mine.py:Mine-v0", "--steps", "2000"]
    flags = [*SHORT, "--save-every", "256", "--eval-every", "0", "--name", "mine"]
    done = subprocess.run([*words, *flags], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert re.search(r"Mine-v0.*environment \d.*step \d+.*nan", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert "once that is mended: plaudit run --resume runs/mine" in done.stderr
    assert RunFolder.open("mine").saved_at() == ("train", 768)
    path.write_text(WORLD.format(reward="float(action)"))
    again = subprocess.run(
        [*PLAUDIT, "run", "--resume", "runs/mine"], capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert RunFolder.open("mine").finished


BUMP = """
def bump():
    global count
    count += 1
    return count
"""
PLAUDIT = [sys.executable, "-m", "plaudit.cli.main"]


STOPS = """
import os, signal, sys
from plaudit.cli.main import main
from plaudit.records.runs import RunFolder

append, done = RunFolder.append_jsonl, []
def and_stop(run, name, row):
    append(run, name, row)
    if name == "metrics.jsonl" and not done:
        done.append(os.kill(os.getpid(), signal.SIGINT))
RunFolder.append_jsonl = and_stop
sys.exit(main(sys.argv[1:]))
"""
"""The command, which is sent SIGINT as soon as it has logged its first numbers."""


def test_ctrl_c_saves_and_resume_ends_where_an_undisturbed_run_does():
    words = ["control/ppo", "--env", "CartPole-v1", "--steps", "30000", "--eval-every", "0", *SHORT]
    stopped = subprocess.run(
        [sys.executable, "-c", STOPS, "run", *words, "--name", "stopped"],
        capture_output=True,
        text=True,
    )
    assert stopped.returncode == 130, stopped.stderr
    assert "plaudit run --resume runs/stopped" in stopped.stderr
    assert not RunFolder.open("stopped").finished
    assert main(["run", "--resume", "stopped"]) == 0
    assert command(*words, "--name", "whole") == 0
    arrays = [RunFolder.open(name).load_checkpoint() for name in ("stopped", "whole")]
    assert arrays[0] is not None
    assert arrays[1] is not None
    assert arrays[0][1] == arrays[1][1]
    for name, array in arrays[0][2].items():
        assert array.tobytes() == arrays[1][2][name].tobytes(), name


def test_learn_returns_an_agent_with_its_log():
    agent = plaudit.learn("ppo", "CartPole-v1", steps=1024, seed=1, num_envs=2, eval_episodes=2)
    assert agent.algorithm == "ppo"
    assert agent.log[-1]["step"] == 1024
    assert any("eval/return" in row for row in agent.log)
    again = plaudit.learn("ppo", "CartPole-v1", steps=1024, seed=1, num_envs=2, eval_episodes=2)
    assert again.evaluate(2) == agent.evaluate(2)
    agent.save("mine")
    assert plaudit.load("mine").evaluate(2) == agent.evaluate(2)


@pytest.mark.parametrize(
    ("words", "keys", "fault"),
    [
        (("ppa", "CartPole-v1"), {}, "no algorithm 'ppa' .did you mean 'ppo'"),
        (("ppo", "CartPole-v1"), {"learning_rate": 1.0}, "unknown key 'learning_rate'"),
        (("ppo", "CartPole-v1"), {"lr": -1.0}, "lr = -1.0"),
    ],
)
def test_learn_refuses_what_it_cannot_do(words, keys, fault):
    with pytest.raises(UserError, match=fault):
        plaudit.learn(*words, **keys)


def test_load_says_where_nothing_is(tmp_path):
    with pytest.raises(UserError, match="no run at"):
        plaudit.load("nothing")


def test_plaudit_names_what_it_has():
    assert {"learn", "load"} <= set(dir(plaudit))
    with pytest.raises(AttributeError, match="no attribute 'lern'"):
        plaudit.lern  # noqa: B018

"""`plaudit eval` as a user runs it: the same figures again, best and last, films, sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import plaudit as package
from plaudit.cli.main import main
from plaudit.control.ppo import PPOConfig
from plaudit.pipelines.control.evaluation import judge
from plaudit.pipelines.control.job import run_control
from plaudit.pipelines.drive import Silent
from plaudit.records.interrupt import Interrupt
from plaudit.records.runs import RunFolder

WAIT = '''\
import gymnasium
import numpy as np


class Wait(gymnasium.Env):
    """An episode means to last k of 1 to 8 steps; its first reward tells k, as 100 k + 1."""

    observation_space = gymnasium.spaces.Box(0, 8, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.k, self.t = int(self.np_random.integers(1, 9)), 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        reward = 1 + 100 * self.k * (self.t == 1)
        return np.full(1, self.t, np.float32), float(reward), self.t == self.k, False, {}


gymnasium.register("Wait-v0", entry_point=Wait, max_episode_steps=5)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """runs/cart, a short run of PPO; agent/, the agent of another; wait.py, an environment."""
    folder = tmp_path_factory.mktemp("eval")
    config = PPOConfig(steps=3000, num_steps=32, eval_every=500, eval_episodes=8)
    with RunFolder.create(folder / "runs" / "cart", config, pipeline="control/ppo") as run:
        run.finish(run_control("ppo", config, run, progress=Silent(), interrupt=Interrupt()))
    package.learn("ppo", "CartPole-v1", steps=256, eval_every=0).save(folder / "agent")
    (folder / "wait.py").write_text(WAIT)
    return folder


@pytest.fixture
def plaudit(folder, monkeypatch, capsys):
    """Runs the command in that folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(folder)

    def call(*words):
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:
            code = leaving.code
        out, err = capsys.readouterr()
        return code, out, err

    return call


def figures(plaudit, *words):
    code, out, err = plaudit("eval", *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def evaluations():
    rows = RunFolder.open("cart").read_jsonl("metrics.jsonl")
    return [row["eval/return"] for row in rows if "eval/return" in row]


def test_the_end_of_a_run_is_judged_to_the_same_figures_again(plaudit, folder):
    """The same hundred episodes: what the run's results say, bit for bit."""
    found = figures(plaudit, "cart")
    results = RunFolder.open("cart").results
    assert results is not None
    for name in ("eval/return", "eval/return_low", "eval/return_high", "eval/length"):
        assert found[name] == results[name]
    assert found["episodes"] == 100
    assert found["eval/return_min"] <= found["eval/return_median"] <= found["eval/return_max"]
    assert found["eval/length_max"] == found["eval/return_max"]  # a step is worth 1


def test_best_and_last_are_those_of_the_log(plaudit, folder):
    last = figures(plaudit, "cart", "--episodes", "8")
    best = figures(plaudit, folder / "runs" / "cart", "--episodes", "8", "--best")
    logged = evaluations()
    assert last["eval/return"] == logged[-1]
    assert best["eval/return"] == max(logged)


def test_a_saved_agent_is_judged_alike(plaudit, folder):
    assert (
        figures(plaudit, "runs/cart/model")["eval/return"]
        == figures(plaudit, "cart")["eval/return"]
    )


def test_drawn_actions_differ_and_a_seed_repeats_them(plaudit, folder):
    words = ("agent", "--episodes", "10", "--stochastic")
    drawn = figures(plaudit, *words)
    assert drawn["policy"] == "stochastic"
    assert drawn == figures(plaudit, *words)
    assert drawn["eval/return"] != figures(plaudit, "agent", "--episodes", "10")["eval/return"]
    other = figures(plaudit, *words, "--seed", "5")
    assert other["seed"] == 5
    assert other["eval/return"] != drawn["eval/return"]


def test_the_table_says_what_the_json_says(plaudit, folder):
    code, out, _ = plaudit("eval", "agent", "--episodes", "7")
    found = figures(plaudit, "agent", "--episodes", "7")
    assert code == 0
    assert "ppo on CartPole-v1, 7 episodes, deterministic policy, seed 0" in out
    assert f"mean return      {found['eval/return']:.4g}" in out
    assert f"{found['eval/return_low']:.4g} to {found['eval/return_high']:.4g}" in out


def test_episodes_that_a_limit_cut_off_are_counted(folder, monkeypatch):
    """Of k in 1 to 8 steps a limit of 5 cuts off those above 5: three in eight."""
    monkeypatch.chdir(folder)
    agent = package.learn("ppo", "wait.py:Wait-v0", steps=64, eval_every=0)
    found = judge(agent, 400)
    meant = [round(episode.ret) // 100 for episode in found.episodes]
    assert [episode.length for episode in found.episodes] == [min(k, 5) for k in meant]
    assert found.truncated == [k > 5 for k in meant]
    share = found.facts()["eval/truncated"]
    assert share == pytest.approx(sum(k > 5 for k in meant) / 400)
    assert share == pytest.approx(3 / 8, abs=0.1)  # four standard errors


def test_a_film_shows_the_first_episode(plaudit, folder):
    pytest.importorskip("pygame")
    image = pytest.importorskip("PIL.Image")
    code, out, err = plaudit("eval", "agent", "--episodes", "3", "--video", "seen/one.gif")
    assert (code, err) == (0, "")
    first = judge(package.load("agent"), 3).episodes[0]
    assert f"Video: seen/one.gif (return {first.ret:.4g}, {first.length} steps)" in out
    with image.open("seen/one.gif") as film:
        assert film.n_frames == first.length + 1


def test_a_film_goes_beside_the_report(plaudit, folder):
    pytest.importorskip("pygame")
    pytest.importorskip("imageio_ffmpeg")
    found = figures(plaudit, "cart", "--episodes", "2", "--video")
    assert found["video"] == "runs/cart/report/episode.mp4"
    assert Path(found["video"]).read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["crat"], "no run at runs/crat (did you mean 'cart'?)"),
        (["agent", "--best"], "agent is a saved agent, which is one: --best is for runs"),
        (["agent", "--episodes", "0"], "--episodes 0: at least one is needed"),
        (["agent", "--video", "film.avi"], "video file film.avi must end in .mp4, .webm or .gif"),
        (["runs/other"], "the run runs/other is not of an agent"),
        (["runs/fresh"], "the run runs/fresh holds no last checkpoint yet"),
    ],
)
def test_wrong_input_is_told_in_a_sentence(plaudit, folder, words, sentence):
    for name in ("other", "fresh"):
        path = folder / "runs" / name
        if not path.exists():
            with RunFolder.create(path, PPOConfig(), pipeline="control/ppo") as run:
                if name == "other":
                    run.save_checkpoint("last", "learn", 1, {}, {"num_episodes": 0})
    code, _, err = plaudit("eval", *words)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1


def test_the_report_says_what_came_out_and_how_to_use_it(plaudit, folder):
    results = RunFolder.open("cart").results
    page = (folder / "runs" / "cart" / "report" / "index.html").read_text()
    assert "PPO on CartPole-v1" in page
    assert f"mean return is {results['eval/return']:.4g}" in page
    assert "475, the environment" in page
    assert "plaudit.load(" in page
    assert "num_steps: 32" in page
    for picture in ("curve.png", "metrics.png"):
        assert f'src="{picture}"' in page
        assert (folder / "runs" / "cart" / "report" / picture).stat().st_size > 10_000

"""Finite worlds as a user runs them: plan, learn, games, stops, kills, resumes, sentences."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from plaudit.cli.main import main
from plaudit.mdp.learning import ALGORITHMS, q_learning
from plaudit.mdp.partial import write_pomdp
from plaudit.mdp.planning import METHODS, solve
from plaudit.mdp.worlds import WORLDS, world
from plaudit.pipelines.finite.learner import learner_of
from plaudit.pipelines.glossary import GLOSSARY
from plaudit.records.recipes import load_recipe, shipped_recipes
from plaudit.records.runs import RunFolder


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A folder of its own for the runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plaudit(capsys):
    """Runs the command in this process: (exit code, stdout, stderr)."""

    def call(*words):
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def array(name, kind):
    return np.load(Path("runs") / name / "arrays" / f"{kind}.npy", allow_pickle=False)


def log(name):
    rows = RunFolder.open(name).read_jsonl("metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in ("time", "seconds")} for row in rows]


# --- planning


def test_planning_leaves_the_known_value_its_bound_and_pictures(plaudit):
    code, out, err = plaudit(
        "run", "mdp/value_iteration", "--world", "frozenlake-8x8", "--name", "lake"
    )
    assert (code, err) == (0, "")
    assert "World: frozenlake-8x8, 64 states × 4 actions, gamma 0.99" in out
    assert "Report: runs/lake/report/index.html" in out
    results = RunFolder.open("lake").results
    assert results["value"] == pytest.approx(0.414640, abs=1e-6)
    assert results["bound"] <= 1e-8
    truth = solve(world("frozenlake-8x8"), tol=1e-12)
    assert np.abs(array("lake", "value") - truth.value).max() <= results["bound"] + truth.bound
    assert array("lake", "q").shape == (64, 4)
    trace = [row["bound"] for row in log("lake")]
    assert trace[0] > trace[-1]
    assert trace[-1] <= 1e-8
    report = Path("runs/lake/report")
    page = (report / "index.html").read_text()
    pictures = re.findall(r'src="([\w.]+)"', page)
    assert pictures == ["value.png", "policy.png", "convergence.png"]
    assert all((report / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert "0.41464" in page


def test_show_draws_value_and_policy(plaudit):
    plaudit("run", "mdp/solve", "--world", "grid-4x4", "--name", "room")
    _, out, _ = plaudit("show", "room")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    at = lines.index("value")
    # Example 4.1's room under the best policy: minus the distance to the nearer corner.
    assert lines[at + 1 : at + 5] == ["end -1 -2 -3", "-1 -2 -3 -2", "-2 -3 -2 -1", "-3 -2 -1 end"]
    at = lines.index("policy")
    assert lines[at + 1].split()[:3] == ["end", "←", "←"]
    assert lines[at + 2].split()[0] == "↑"
    plaudit("run", "mdp/solve", "--world", "recycling-robot", "--name", "robot")
    _, out, _ = plaudit("show", "robot")
    assert re.search(r"state +value +action\n", out)
    plaudit("run", "mdp/solve", "--world", "racetrack", "--name", "race")
    _, out, _ = plaudit("show", "race")  # too large to print
    assert not re.search(r"state +value +action\n", out)


def test_gamma_and_tolerance_are_obeyed(plaudit):
    plaudit("run", "mdp/solve", "--world", "grid-5x5", "--gamma", "0.5", "--name", "near")
    truth = solve(world("grid-5x5").with_gamma(0.5))
    assert np.allclose(array("near", "value"), truth.value, atol=1e-7)
    plaudit(
        "run", "mdp/value_iteration", "--world", "frozenlake-4x4", "--tol", "1e-2", "--name", "b"
    )
    assert 1e-4 < RunFolder.open("b").results["bound"] <= 1e-2
    code, out, _ = plaudit("run", "mdp/value_iteration", "--tol", "1e-18", "--name", "c")
    assert code == 0
    assert "Note: solve: the bound is" in out


def test_options_reach_a_named_world(plaudit):
    words = ["run", "mdp/solve", "--world", "garnet", "--name", "g", "--world_options"]
    assert plaudit(*words, "num_states=7", "seed=3")[0] == 0
    assert np.allclose(array("g", "value"), solve(world("garnet", num_states=7, seed=3)).value)


TABLE = """state,action,next_state,probability,reward
cool,slow,cool,1,1
cool,fast,cool,0.5,2
cool,fast,warm,0.5,2
warm,slow,cool,0.5,1
warm,slow,warm,0.5,1
warm,fast,broken,1,-10
"""


def test_a_table_is_a_world(plaudit):
    Path("car.csv").write_text(TABLE)
    code, _, err = plaudit(
        "run", "mdp/solve", "--world", "car.csv", "--gamma", "0.9", "--name", "car"
    )
    assert (code, err) == (0, "")
    # fast when cool, slow when warm: C = 2 + 0.45 C + 0.45 W, W = 1 + 0.45 C + 0.45 W
    assert array("car", "value") == pytest.approx([15.5, 14.5, 0])
    _, out, _ = plaudit("show", "car")
    assert re.search(r"cool +15.5 +fast\n +warm +14.5 +slow\n +broken +0 +end", out)


def test_a_gymnasium_id_is_a_world(plaudit):
    words = ["--world", "gymnasium:CliffWalking-v1", "--name", "cliff"]
    assert plaudit("run", "mdp/solve", *words)[0] == 0
    assert RunFolder.open("cliff").results["value"] == pytest.approx(-13)


def test_every_planner_and_learner_has_a_recipe():
    recipes = {name: load_recipe(name) for name in shipped_recipes() if name.startswith("mdp/")}
    planned = {r.values["method"] for r in recipes.values() if r.pipeline == "mdp/plan"}
    learned = {r.values["learner"] for r in recipes.values() if r.pipeline == "mdp/learn"}
    assert planned == set(METHODS)
    assert learned == set(ALGORITHMS)


# --- learning

LEARN = ["run", "mdp/q_learning", "--world", "frozenlake-4x4", "--num_steps", "60000"]


def test_learning_is_the_library_s_learning(plaudit):
    code, out, err = plaudit(*LEARN, "--seed", "3", "--name", "learn")
    assert (code, err) == (0, "")
    assert "learn: 60000/60000" in out
    alone = q_learning(world("frozenlake-4x4"), num_steps=60_000, alpha=0.1, epsilon=0.1, seed=3)
    assert np.array_equal(array("learn", "q"), alone.q)
    results = RunFolder.open("learn").results
    assert results["num_episodes"] == alone.episode_return.size
    assert results["optimal_value"] == pytest.approx(0.542026, abs=1e-6)
    assert 0 < results["policy_value"] <= results["optimal_value"] + 1e-9
    rows = log("learn")
    assert rows[-1]["step"] == 60_000
    counts = np.diff([0, *(row["episode/count"] for row in rows)])
    mean = sum(row["episode/return"] * n for row, n in zip(rows, counts, strict=True) if n)
    assert mean / counts.sum() == pytest.approx(alone.episode_return.mean())
    page = Path("runs/learn/report/index.html").read_text()
    assert re.findall(r'src="([\w.]+)"', page) == [
        "policy_value.png",
        "episode_return.png",
        "value.png",
        "policy.png",
    ]


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_learner_is_saved_and_restored_exactly(name):
    def fresh():
        return learner_of(
            name,
            world("grid-4x3"),
            alpha=0.2,
            alpha_power=0.0,
            epsilon=0.2,
            max_episode_steps=50,
            options={},
            seed=1,
        )

    whole, broken = fresh(), fresh()
    whole.go_on(700)
    broken.go_on(300)
    arrays, facts = broken.state()
    again = fresh()
    again.restore({name: array.copy() for name, array in arrays.items()}, facts)
    assert again.num_steps == 300
    again.go_on(400)
    assert np.array_equal(again.result.q, whole.result.q)
    mine, undivided = again.state(), whole.state()
    assert mine[1] == undivided[1]
    assert mine[0].keys() == undivided[0].keys()
    assert all(mine[0][name].tobytes() == undivided[0][name].tobytes() for name in mine[0])


def test_step_sizes_may_fall(plaudit):
    plaudit(*LEARN, "--name", "a")
    plaudit(*LEARN, "--alpha_power", "0.8", "--alpha", "1", "--name", "b")
    error = {}
    truth = solve(world("frozenlake-4x4"), tol=1e-10).q
    for name in "ab":
        error[name] = np.abs(array(name, "q") - truth)[0].max()
    assert error["b"] != error["a"]


def test_options_reach_a_learner(plaudit):
    words = [
        "run",
        "mdp/n_step_sarsa",
        "--world",
        "cliff",
        "--num_steps",
        "2000",
        "--learner_options",
    ]
    assert plaudit(*words, "n=2", "--name", "two")[0] == 0
    assert plaudit(*words, "n=5", "--name", "five")[0] == 0
    assert not np.array_equal(array("two", "q"), array("five", "q"))


# --- stops and kills, as the system delivers them

DIES = """
import os, signal, sys
from plaudit.cli.main import main
from plaudit.pipelines import drive
from plaudit.records.runs import RunFolder
after, number, words = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
saved = [0]
save = RunFolder.save_checkpoint
def counted(self, *rest):
    save(self, *rest)
    saved[0] += 1
    if saved[0] == after:
        os.kill(os.getpid(), number)
RunFolder.save_checkpoint = counted
sys.exit(main(words))
"""


def in_a_process(*words, code="import sys; from plaudit.cli.main import main; sys.exit(main())"):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("number", "code", "after"),
    [(9, -9, 2), (9, -9, 6), (2, 130, 3)],
    ids=["SIGKILL", "SIGKILL at the last save", "SIGINT"],
)
def test_a_stopped_run_goes_on_to_the_same_numbers(plaudit, number, code, after):
    plaudit(*LEARN, "--name", "whole")
    died = in_a_process(after, number, *LEARN, "--name", "broken", code=DIES)
    assert died.returncode == code
    run = RunFolder.open("broken")
    assert not run.finished
    assert run.saved_at()[0] == "learn"
    assert (after - 1) * 10_000 < run.saved_at()[1] <= after * 10_000
    if number == 2:
        assert "Continue with: plaudit run --resume runs/broken" in died.stderr
    went_on = in_a_process("run", "--resume", "broken")
    assert went_on.returncode == 0, went_on.stderr
    for kind in ("value", "q", "policy", "visits"):
        assert np.array_equal(array("broken", kind), array("whole", kind))
    assert log("broken") == log("whole")
    pair = [dict(RunFolder.open(name).results) for name in ("whole", "broken")]
    for results in pair:
        del results["seconds"]
    assert pair[0] == pair[1]


def test_a_damaged_checkpoint_is_refused(plaudit):
    in_a_process(2, 9, *LEARN, "--name", "broken", code=DIES)
    facts = Path("runs/broken/checkpoints/last/facts.json")
    facts.write_text(facts.read_text().replace('"num_episodes": ', '"num_episodes": 1'))
    code, _, err = plaudit("run", "--resume", "broken")
    assert code == 2
    assert "is damaged: facts.json is not what was saved" in err


TORCHLESS = """
import json, os, signal, sys
from plaudit.cli.main import main
from plaudit.records.runs import RunFolder
save = RunFolder.save_checkpoint
def interrupted(self, *rest):
    save(self, *rest)
    os.kill(os.getpid(), signal.SIGINT)
RunFolder.save_checkpoint = interrupted
assert main(json.loads(sys.argv[1])) == 130
RunFolder.save_checkpoint = save
for words in json.loads(sys.argv[2]):
    assert main(words) == 0, words
heavy = {"torch", "transformers", "sqlalchemy"} & set(sys.modules)
assert not heavy, heavy
"""


def test_finite_worlds_load_no_torch():
    then = [
        ["run", "--resume", "broken"],
        ["run", "mdp/policy_iteration", "--name", "plan"],
        ["run", "mdp/game", "--name", "game"],
        ["show", "broken"],
        ["ls", "worlds"],
    ]
    words = [json.dumps(given) for given in ([*LEARN, "--name", "broken"], then)]
    done = in_a_process(*words, code=TORCHLESS)
    assert done.returncode == 0, done.stderr
    assert RunFolder.open("broken").finished


# --- partly seen worlds


LONG = ("--seconds", "3600")
"""As long as a busy machine may need to come to the tolerance."""


def test_tiger_is_planned_between_two_bounds(plaudit):
    code, out, err = plaudit("run", "mdp/pomdp", "--world", "tiger", *LONG, "--name", "tiger")
    assert (code, err) == (0, "")
    assert "World: tiger, 2 states × 3 actions × 2 observations, gamma 0.95" in out
    results = RunFolder.open("tiger").results
    assert results["lower"] <= 19.371368375 + 1e-9
    assert results["upper"] >= 19.371368375 - 1e-9
    assert results["upper"] - results["lower"] <= 1e-6
    assert results["first_action"] == "listen"
    alphas, actions = array("tiger", "alphas"), array("tiger", "actions")
    assert len(alphas) == len(actions) == results["num_alphas"]
    assert (alphas @ [0.5, 0.5]).max() == pytest.approx(results["lower"], abs=1e-6)
    assert set(log("tiger")[-1]) - {"stage", "step", "event"} == {"lower", "upper"}
    page = Path("runs/tiger/report/index.html").read_text()
    assert re.findall(r'src="([\w.]+)"', page) == ["bounds.png", "alphas.png"]


def test_cassandras_files_are_worlds(plaudit):
    write_pomdp(world("tiger"), "my.pomdp")
    words = ["run", "mdp/pomdp", "--world", "my.pomdp", "--tol", "1e-2", *LONG, "--name", "mine"]
    assert plaudit(*words)[0] == 0
    results = RunFolder.open("mine").results
    assert results["lower"] - 1e-9 <= 19.371368375 <= results["upper"] + 1e-9
    assert 1e-6 < results["upper"] - results["lower"] <= 1e-2


# --- games


def test_a_matrix_game_tells_its_equilibria(plaudit):
    assert plaudit("run", "mdp/game", "--world", "chicken", "--name", "chicken")[0] == 0
    results = RunFolder.open("chicken").results
    assert results["equilibria"] == 3
    assert results["nondegenerate"] == "true"
    said = [results[f"equilibrium {i}"] for i in (1, 2, 3)]
    assert "yield 1 | dare 1 | pays 2, 7" in said
    assert "yield 0.6667, dare 0.3333 | yield 0.6667, dare 0.3333 | pays 4.667, 4.667" in said
    _, out, _ = plaudit("show", "chicken")
    assert "equilibrium 1: " in out


def test_a_zero_sum_game_tells_its_value_and_strategies(plaudit):
    plaudit("run", "mdp/game", "--world", "matching-pennies", "--name", "pennies")
    results = RunFolder.open("pennies").results
    assert results["value"] == pytest.approx(0, abs=1e-12)
    assert results["strategy of matcher"] == "heads 0.5, tails 0.5"
    assert results["bound"] < 1e-12


def test_a_markov_game_tells_its_value(plaudit):
    assert (
        plaudit("run", "mdp/game", "--world", "big-match", "--gamma", "0.8", "--name", "b")[0] == 0
    )
    assert RunFolder.open("b").results["value"] == pytest.approx(2.5, abs=1e-7)
    assert array("b", "policy_0")[0] == pytest.approx([1 / 1.2, 0.2 / 1.2], abs=1e-6)


# --- lists, words, sentences


def test_ls_worlds_names_every_world_with_its_size_and_sentence(plaudit):
    _, out, _ = plaudit("ls", "worlds")
    lines = out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(WORLDS)
    assert re.search(r"frozenlake-8x8 +MDP +64 × 4 +Over an 8×8 frozen lake", out)
    assert re.search(r"soccer +MarkovGame +761 × 5 × 5 +Two players", out)
    assert re.search(r"tiger +POMDP +2 × 3 × 2 +Behind one of two doors", out)
    assert all(len(line.split("  ")[-1]) > 10 for line in lines)


def test_a_plan_says_which_planner_auto_took_and_one_bound(plaudit):
    _, out, _ = plaudit("run", "mdp/solve", "--name", "plan")
    assert "Planner: policy_iteration, which auto took for this world" in out
    results = json.loads(Path("runs/plan/results.json").read_text())
    assert (results["method"], results["planner"]) == ("auto", "policy_iteration")
    assert log("plan")[-1]["bound"] == results["bound"] > 0
    assert f"bound {results['bound']:.4g}" in out
    assert "-0" not in [str(row["bound"]) for row in log("plan")]
    assert "Planner" not in plaudit("run", "mdp/value_iteration")[1]


def test_every_logged_number_is_in_the_glossary(plaudit):
    plaudit("run", "mdp/solve", "--name", "plan")
    plaudit(*LEARN, "--name", "learn")
    plaudit("run", "mdp/game", "--name", "game")
    for name in ("plan", "learn", "game"):
        said = {key for row in log(name) for key in row} - {"stage", "step", "event"}
        assert said <= set(GLOSSARY), name


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["mdp/solve", "--world", "frozenlake"],
            "no world 'frozenlake' (did you mean 'frozenlake-",
        ),
        (
            ["mdp/solve", "--world", "tiger"],
            "tiger is a POMDP, not a Markov decision process; solve",
        ),
        (["mdp/q_learning", "--world", "soccer"], "by: plaudit run mdp/game --world soccer"),
        (
            ["mdp/pomdp", "--world", "cliff"],
            "cliff is an MDP, not a POMDP; solve it by: plaudit run",
        ),
        (["mdp/pomdp", "--world", "my.pomdp"], "no file my.pomdp"),
        (["mdp/pomdp", "--world", "tiger", "--seconds", "0"], "greater than 0"),
        (["mdp/game", "--world", "cliff"], "cliff is an MDP, not a game; solve it by: plaudit run"),
        (["mdp/game", "--world", "chicken", "--gamma", "0.5"], "has no discount; leave gamma out"),
        (["mdp/solve", "--world", "car.csv"], "car.csv does not say its discount; give one"),
        (["mdp/solve", "--world", "cra.csv", "--gamma", "1"], "did you mean 'car.csv'"),
        (["mdp/solve", "--world", "car.csv", "--gamma", "2"], "less than or equal to 1"),
        (["mdp/solve", "--world", "car.csv", "--gamma", "0.9"], "car.csv, line 2: state cool"),
        (["mdp/solve", "--world", "cliff", "--world_options", "slip=1"], "no option 'slip'"),
        (["mdp/solve", "--method", "value_iterations"], "did you mean 'value_iteration'"),
        (["mdp/solve", "--world", "gymnasium:Blackjack-v1", "--gamma", "1"], "as a table P"),
        (["mdp/topological", "--world", "cliff"], "gamma"),
        (["mdp/sarsa", "--learner", "sarsas"], "no learner 'sarsas' (did you mean 'sarsa'?)"),
        (["mdp/sarsa_lambda", "--learner_options", "lambda=1"], "takes no 'lambda' (did you mean"),
        (["mdp/n_step_sarsa", "--learner_options", "n=x"], "n='x' is not a number"),
        (["mdp/n_step_sarsa", "--learner_options", "n=0"], "n: 0; expected"),
        (["mdp/sarsa", "--alpha", "2"], "alpha"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_sentence(plaudit, capsys, words, sentence):
    Path("car.csv").write_text(TABLE.replace("cool,slow,cool,1,1", "cool,slow,cool,0.9,1"))
    try:
        code, _, err = plaudit("run", *words)
    except SystemExit as leaving:  # from the reader of flags
        code, err = leaving.code, " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert code == 2
    assert sentence in err
    assert "Traceback" not in err
    assert not list(Path("runs").glob("*")) if Path("runs").exists() else True

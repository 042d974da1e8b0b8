"""Worlds from functions, tables, Gymnasium and episodes, and what is said of each mistake."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.mdp import MDP
from plaudit.mdp.build import from_episodes, from_functions, from_gymnasium, from_table
from plaudit.mdp.learning.sampling import first_state, seeded, step, table_of
from plaudit.mdp.planning import evaluate, finite_horizon, solve
from plaudit.records.errors import UserError

# --- functions


def corridor(**options):
    """States 0 to 3, of which 3 is the end; left and right, the latter slips with 1/4."""

    def moves(s, a):
        if s == 3:
            return None
        if a == "left":
            return {s - 1: 1.0} if s > 0 else {}
        return [(0.75, s + 1), (0.25, s)]

    return from_functions(range(4), ["left", "right"], moves, lambda s, a: -1.0, 1.0, **options)


def test_functions_make_the_world_they_say():
    world = corridor(initial=0)
    assert world.actions == ("left", "right")
    assert world.states is None  # the states are their own numbers
    assert np.array_equal(world.available, [[0, 1], [1, 1], [1, 1], [1, 1]])
    assert np.array_equal(world.terminal, [0, 0, 0, 1])
    assert np.array_equal(world.initial, [1, 0, 0, 0])
    assert np.array_equal(world.dense()[1, 1], [0, 0.25, 0.75, 0])
    # Each cell takes 4/3 of a step on average.
    assert solve(world).value == pytest.approx([-4, -8 / 3, -4 / 3, 0])


def test_rewards_may_depend_on_where_a_step_leads():
    world = from_functions(
        ["a", "b"],
        ["go"],
        lambda s, a: {"a": 0.5, "b": 0.5},
        lambda s, a, to: 10.0 if to == "b" else 2.0,
        0.5,
        initial={"a": 0.25, "b": 0.75},
    )
    assert np.array_equal(world.reward, [[6], [6]])
    assert np.array_equal(world.reward_next, [2, 10, 2, 10])
    assert solve(world).value == pytest.approx([12, 12])
    assert world.state("b") == 1
    assert np.array_equal(world.initial, [0.25, 0.75])


def test_rewards_by_next_state_stay_with_their_transitions_where_actions_are_missing():
    world = from_functions(
        [0, 1, 2],
        ["stay", "go"],
        lambda s, a: {1: 0.5, 2: 0.5} if (s, a) == (0, "go") else ({1: 1.0} if s == 1 else None),
        lambda s, a, to: float(to),
        0.9,
        initial=0,
    )
    table, rng = table_of(world), seeded(0)
    assert first_state(table, rng) == 0
    drawn = {step(table, rng, 0, 1) for _ in range(50)}
    assert drawn == {(1, 1.0), (2, 2.0)}


# --- tables

TABLE = """state,action,next_state,probability,reward
sunny,walk,sunny,0.9,2
sunny,walk,rainy,0.1,-1
sunny,drive,home,1,0
rainy,drive,home,1,-0.5
"""


def test_a_csv_file_is_a_world(tmp_path):
    path = tmp_path / "weather.csv"
    path.write_text(TABLE)
    world = from_table(path, 0.9, initial="rainy")
    assert world.states == ("sunny", "rainy", "home")
    assert world.actions == ("walk", "drive")
    assert np.array_equal(world.terminal, [False, False, True])
    assert np.array_equal(world.available, [[1, 1], [0, 1], [1, 1]])
    assert world.reward[0] == pytest.approx([1.7, 0])
    assert np.array_equal(world.initial, [0, 1, 0])
    # V(sunny) = 1.7 + 0.9 (0.9 V(sunny) + 0.1 · -0.5) = 1.655 / 0.19
    assert solve(world).value == pytest.approx([1.655 / 0.19, -0.5, 0])


def test_jsonl_and_mappings_are_the_same_world(tmp_path):
    names = TABLE.split("\n", 1)[0].split(",")
    rows = []
    for line in TABLE.splitlines()[1:]:
        row = dict(zip(names, line.split(","), strict=True))
        row |= {"probability": float(row["probability"]), "reward": float(row["reward"])}
        rows.append(row)
    path = tmp_path / "weather.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    (tmp_path / "weather.csv").write_text(TABLE)
    csv = from_table(tmp_path / "weather.csv", 0.9)
    for world in (from_table(path, 0.9), from_table(rows, 0.9)):
        assert np.array_equal(world.dense(), csv.dense())
        assert np.array_equal(world.reward, csv.reward)
        assert world.states == csv.states


def test_numbers_keep_their_places():
    rows = [
        {"state": s, "action": a, "next_state": t, "probability": 1, "reward": a}
        for s, a, t in ((2, 1, 0), (2, 0, 2), (0, 0, 1), (0, 1, 2), (1, 0, 1), (1, 1, 10 - 9))
    ]
    world = from_table(rows, 0.5)
    assert world.states is None
    assert np.array_equal(world.dense()[1], [[0, 0, 1], [0, 1, 0], [1, 0, 0]])


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_a_world_survives_its_table(seed):
    rng = np.random.default_rng(seed)
    num_states, num_actions = (int(n) for n in rng.integers(1, 5, 2))
    transition = rng.dirichlet(np.ones(num_states), size=(num_actions, num_states))
    paid = rng.normal(size=transition.shape)
    world = MDP(transition, paid, 0.9)
    rows = [
        {"state": s, "action": a, "next_state": t, "probability": p, "reward": paid[a, s, t]}
        for (a, s, t), p in np.ndenumerate(transition)
    ]
    rng.shuffle(rows)
    again = from_table(rows, 0.9)
    assert np.array_equal(again.dense(), world.dense())
    assert np.allclose(again.reward, world.reward, atol=1e-14)
    if world.reward_next is not None:
        assert np.allclose(again.reward_next, world.reward_next, atol=1e-14)


# --- Gymnasium


def test_frozen_lake_four_by_four_has_its_known_values():
    world = from_gymnasium("FrozenLake-v1", 0.99)
    assert (world.num_states, world.num_actions) == (16, 4)
    assert np.array_equal(np.flatnonzero(world.terminal), [5, 7, 11, 12, 15])
    assert np.array_equal(world.grid, np.arange(16).reshape(4, 4))
    assert world.actions == ("left", "down", "right", "up")
    assert solve(world).value[0] == pytest.approx(0.542026, abs=1e-6)
    undiscounted = world.with_gamma(1.0)
    assert solve(undiscounted).value[0] == pytest.approx(0.823529, abs=1e-6)  # 14/17
    assert solve(undiscounted).value[0] == pytest.approx(14 / 17, abs=1e-9)
    assert finite_horizon(undiscounted, 100).value[0, 0] == pytest.approx(0.744190, abs=1e-6)


def test_frozen_lake_eight_by_eight_has_its_known_values():
    world = from_gymnasium("FrozenLake8x8-v1", 0.99)
    assert world.num_states == 64
    assert solve(world).value[0] == pytest.approx(0.414640, abs=1e-6)
    best = finite_horizon(world.with_gamma(1.0), 200).value[0, 0]
    assert best == pytest.approx(0.913220, abs=1e-6)


def test_taxi_has_its_known_values():
    # After the last drop the passenger stands where a lost one may stand too: an end of its own.
    world = from_gymnasium("Taxi-v4", 1.0)
    assert (world.num_states, world.num_actions) == (501, 6)
    assert np.array_equal(np.flatnonzero(world.terminal), [500])
    assert (world.initial > 0).sum() == 300
    value = solve(world).value
    assert world.initial @ value == pytest.approx(7.93, abs=0.005)
    begin = value[world.initial > 0]
    assert (begin.min(), begin.max()) == (pytest.approx(3), pytest.approx(15))


def test_cliff_walking_has_its_known_values():
    world = from_gymnasium("CliffWalking-v1", 1.0)
    assert world.grid.shape == (4, 12)
    assert world.actions == ("up", "right", "down", "left")
    assert np.array_equal(np.flatnonzero(world.terminal), [47])
    assert np.array_equal(np.flatnonzero(world.initial), [36])
    assert solve(world).value[36] == pytest.approx(-13)
    slippery = from_gymnasium("CliffWalking-v1", 1.0, is_slippery=True)
    assert slippery.initial @ solve(slippery).value == pytest.approx(-64.709, abs=1e-3)


def test_options_and_made_environments_are_taken():
    import gymnasium

    sure = from_gymnasium("FrozenLake-v1", 0.9, is_slippery=False)
    env = gymnasium.make("FrozenLake-v1", is_slippery=False)
    assert np.array_equal(from_gymnasium(env, 0.9).dense(), sure.dense())
    env.reset(seed=0)  # still open
    env.close()
    assert solve(sure).value[0] == pytest.approx(0.9**5)


def test_an_end_that_is_a_place_elsewhere_gets_a_state_of_its_own():
    table = [[[(1.0, 1, 0.0, False)]], [[(0.5, 1, 1.0, False), (0.5, 1, 5.0, True)]]]
    world = from_gymnasium(SimpleNamespace(P=table), 0.5)
    assert world.num_states == 3
    assert np.array_equal(world.terminal, [False, False, True])
    # V(1) = (1 + 5) / 2 + 0.5 · 0.5 V(1) = 4
    assert solve(world).value == pytest.approx([2, 4, 0])


# --- episodes


def test_episodes_give_the_frequencies_they_hold():
    log = [
        {"states": ["a", "b", "end"], "actions": ["go", "stop"], "rewards": [1, 4]},
        {
            "states": ["a", "a", "b"],
            "actions": ["go", "go"],
            "rewards": [3, 0],
            "terminated": False,
        },
        {"states": ["b", "end"], "actions": ["stop"], "rewards": [6]},
    ]
    found = from_episodes(log, 0.9)
    world = found.mdp
    assert world.states == ("a", "b", "end")
    assert np.array_equal(found.visits, [[3, 0], [0, 2], [0, 0]])
    assert np.array_equal(found.counts.toarray()[0], [1, 2, 0])
    assert np.array_equal(found.beginnings, [2, 1, 0])
    assert found.num_episodes == 3
    assert world.dense()[0, 0] == pytest.approx([1 / 3, 2 / 3, 0])
    assert np.array_equal(world.available, [[1, 0], [0, 1], [1, 1]])
    assert world.initial == pytest.approx([2 / 3, 1 / 3, 0])
    assert world.reward[0, 0] == pytest.approx(4 / 3)
    assert world.reward_next[:2] == pytest.approx([3, 0.5])  # a → a paid 3; a → b 1 and 0
    # V(b) = 5; V(a) = 4/3 + 0.9 (V(a)/3 + 2/3 · 5)
    assert solve(world).value == pytest.approx([(4 / 3 + 3) / 0.7, 5, 0])


@pytest.mark.parametrize("seed", range(3))
def test_the_learned_world_approaches_the_true_one(seed, tmp_path):
    truth = corridor(initial=0).with_gamma(0.9)
    table, rng = table_of(truth), seeded(seed)
    draw = np.random.default_rng(seed)
    path = tmp_path / "log.jsonl"
    with path.open("w") as file:
        for _ in range(2000):
            states, actions, rewards = [first_state(table, rng)], [], []
            while not truth.terminal[states[-1]]:
                exists = np.flatnonzero(truth.available[states[-1]])
                actions.append(int(draw.choice(exists)))
                to, reward = step(table, rng, states[-1], actions[-1])
                states.append(to)
                rewards.append(reward)
            episode = {"states": states, "actions": actions, "rewards": rewards}
            file.write(
                json.dumps(
                    {
                        k: [float(v) if k == "rewards" else int(v) for v in vs]
                        for k, vs in episode.items()
                    }
                )
                + "\n"
            )
    found = from_episodes(path, 0.9)
    assert np.array_equal(found.mdp.available, truth.available)
    tries = found.visits.min(where=found.visits > 0, initial=10**9)
    assert np.abs(found.mdp.dense() - truth.dense()).max() < 4 * 0.5 / np.sqrt(tries)
    right = np.ones(4, int)
    assert evaluate(found.mdp, right).value == pytest.approx(evaluate(truth, right).value, abs=0.05)


# --- what is refused


def functions(moves, *, states=(0, 1), actions=("a",), reward=lambda s, a: 0.0, **options):
    return from_functions(states, actions, moves, reward, 0.9, **options)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: functions(lambda s, a: {0: 0.5}), "state 0, action 'a': probabilities sum to 0.5"),
        (lambda: functions(lambda s, a: {7: 1}), "next state 7 is not one of the states"),
        (
            lambda: functions(lambda s, a: {"rany": 1}, states=["sunny", "rainy"]),
            r"state 'sunny', action 'a': next state 'rany' .*did you mean 'rainy'",
        ),
        (lambda: functions(lambda s, a: {0: 1.5, 1: -0.5}), "probability 1.5; expected a number"),
        (lambda: functions(lambda s, a: {0: "x"}), "probability 'x' is not a number"),
        (lambda: functions(lambda s, a: 1), r"transition_fn gave 1; expected \{next state"),
        (lambda: functions(None, states=[0, 0]), "states: 0 stands twice"),
        (lambda: functions(None, actions=[]), "actions: there are none"),
        (
            lambda: functions(lambda s, a: {s: 1}, reward=lambda s, a: np.nan),
            "state 0, action 'a': reward is nan",
        ),
        (lambda: functions(lambda s, a: {s: 1}, reward=lambda s: 0), "takes 1 arguments"),
        (lambda: functions(lambda s, a: {s: 1}, initial=9), "initial: 9 is not one of the states"),
        (lambda: functions(lambda s, a: {s: 1}, initial={0: 0.3}), "initial: probabilities sum"),
    ],
)
def test_mistakes_in_functions(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("0.9,2", "0.8,2", "line 2: state sunny, action walk: probabilities sum to 0.9, not 1"),
        ("0.1,-1", "x,-1", "line 3: probability 'x' is not a number"),
        ("0.1,-1", "-0.1,-1", "line 3: probability '-0.1'; expected a number from 0 to 1"),
        ("1,-0.5", "1,inf", "line 5: reward is inf"),
        ("1,-0.5", "1", "line 5: not as many values as the header has columns"),
        ("1,-0.5", "1,2,3", "line 5: not as many values as the header has columns"),
        ("probability,", "probabilty,", "line 2: no column 'probability'; 'probabilty' is not"),
        ("reward\n", "reward,rewrd\n", "not as many values"),
        ("sunny,drive", ",drive", "line 4: state is ''; expected a name"),
        (
            "sunny,walk,rainy",
            "sunny,walk,sunny",
            r"line 3: state sunny, action walk, next_state sunny stands already in .*line 2",
        ),
        (TABLE.partition("\n")[2], "", "no rows; expected state, action, next_state"),
    ],
)
def test_mistakes_in_a_table_name_file_and_line(tmp_path, old, new, sentence):
    path = tmp_path / "weather.csv"
    path.write_text(TABLE.replace(old, new, 1))
    with pytest.raises(UserError, match=f"weather.csv.*{sentence}"):
        from_table(path, 0.9)


def test_other_mistakes_in_tables(tmp_path):
    (tmp_path / "weather.csv").write_text(TABLE)
    with pytest.raises(UserError, match=r"no file .*wether.csv \(did you mean 'weather.csv'\?\)"):
        from_table(tmp_path / "wether.csv", 0.9)
    with pytest.raises(UserError, match=r"initial: 'suny' .*did you mean 'sunny'"):
        from_table(tmp_path / "weather.csv", 0.9, initial="suny")
    (tmp_path / "bad.jsonl").write_text('{"state": 0}\n{')
    with pytest.raises(UserError, match=r"bad.jsonl, line 1: no column 'action'"):
        from_table(tmp_path / "bad.jsonl", 0.9)
    (tmp_path / "bad.jsonl").write_text("{")
    with pytest.raises(UserError, match=r"bad.jsonl, line 1: not valid JSON"):
        from_table(tmp_path / "bad.jsonl", 0.9)
    row = {"state": 0, "action": 0, "next_state": 0, "probability": 1, "reward": 0, "prob": 1}
    with pytest.raises(UserError, match=r"table, row 0: unknown column 'prob' \(did you mean"):
        from_table([row], 0.9)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({0: {0: [(0.5, 0, 0, False)]}}, r"P\[0\]\[0\]: probabilities sum to 0.5, not 1"),
        ({0: {0: [(1.0, 3, 0, False)]}}, r"P\[0\]\[0\]: next state 3; expected 0 to 0"),
        ({0: {0: [(1.0, 0, 0)]}}, r"P\[0\]\[0\]: \(1.0, 0, 0\); expected \(probability, next"),
        ({1: {0: []}}, "states are not numbered 0, 1, 2"),
        ({0: {"left": []}}, r"P\[0\]: actions: 'left'; expected numbers"),
        ({0: {}}, "there are no actions"),
        (3, "P: states: int; expected a mapping or a list"),
    ],
)
def test_mistakes_in_a_gymnasium_table(table, sentence):
    with pytest.raises(UserError, match=sentence):
        from_gymnasium(SimpleNamespace(P=table), 0.9)


def test_environments_that_cannot_be_used():
    with pytest.raises(UserError, match=r"no environment 'FrozenLak-v1' \(did you mean 'FrozenLak"):
        from_gymnasium("FrozenLak-v1", 0.9)
    with pytest.raises(UserError, match="Blackjack-v1 does not show its rules as a table P"):
        from_gymnasium("Blackjack-v1", 0.9)


@pytest.mark.parametrize(
    ("episode", "sentence"),
    [
        ({"states": [0, 1], "actions": [0]}, "episode 0: no 'rewards'"),
        (
            {"states": [0, 1], "actions": [0], "rewards": [1, 2]},
            "episode 0: 2 states, 1 actions and 2 rewards; expected one state more",
        ),
        ({"state": [0]}, r"episode 0: unknown key 'state' \(did you mean 'states'\?\)"),
        (
            {"states": [0, 1], "actions": [0], "rewards": [None]},
            "episode 0: reward 0 None is not a number",
        ),
        ({"states": [0, 0], "actions": [0], "rewards": [1]}, "ends in state 0, which is left"),
        (
            {"states": [0, 1], "actions": [0], "rewards": [1], "terminated": False},
            "state 1 is seen only where an episode is cut off",
        ),
        (
            {"states": [0, 1], "actions": [0], "rewards": [1], "terminated": 1},
            "terminated is 1; expected true or false",
        ),
        ({"states": [0], "actions": [], "rewards": []}, "no episode has a step"),
        ({"states": [0, 0.5], "actions": [0], "rewards": [1]}, "state 1 is 0.5; expected a name"),
        ([0, 1], "episode 0: list; expected states, actions and rewards"),
    ],
)
def test_mistakes_in_episodes(episode, sentence):
    with pytest.raises(UserError, match=sentence):
        from_episodes([episode], 0.9)


def test_no_episodes_are_no_world(tmp_path):
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(UserError, match=r"log.jsonl: no episodes"):
        from_episodes(tmp_path / "log.jsonl", 0.9)

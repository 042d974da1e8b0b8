"""Worlds of the literature against their published and exactly known numbers."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest

from oracles.worlds import blackjack_stick, car_lot_day, racetrack_fewest_steps
from plaudit.mdp import MDP
from plaudit.mdp.planning import evaluate, finite_horizon, solve
from plaudit.mdp.worlds import WORLDS, world
from plaudit.mdp.worlds.casino import CASINO_WORLDS
from plaudit.mdp.worlds.chains import CHAIN_WORLDS
from plaudit.mdp.worlds.games import GAME_WORLDS
from plaudit.mdp.worlds.generated import GENERATED_WORLDS
from plaudit.mdp.worlds.grids import GRID_WORLDS
from plaudit.mdp.worlds.partial import PARTIAL_WORLDS
from plaudit.mdp.worlds.rental import RENTAL_WORLDS
from plaudit.mdp.worlds.roads import ROAD_WORLDS
from plaudit.records.errors import UserError

OWN = [
    *(*GRID_WORLDS, *CHAIN_WORLDS, *CASINO_WORLDS, *RENTAL_WORLDS, *ROAD_WORLDS),
    *GENERATED_WORLDS,
]


def even(mdp):
    """The policy that takes every action as likely."""
    return np.full(mdp.reward.shape, 1 / mdp.num_actions)


def start_value(mdp, value):
    return float(mdp.initial @ value)


def epsilon_soft(mdp, epsilon, *, allowed=None, sign=1.0):
    """The world in which an action is replaced by any other with probability epsilon."""
    p, r = mdp.dense(), mdp.reward
    mixed = (1 - epsilon) * p + epsilon * p.mean(0)
    paid = sign * ((1 - epsilon) * r + epsilon * r.mean(1, keepdims=True))
    if allowed is not None:
        paid = np.where(allowed, paid, -np.inf)
    return MDP(mixed, paid, mdp.gamma, initial=mdp.initial)


# --- Sutton & Barto's grids ---


def test_grid_4x4_under_the_even_policy():
    """Figure 4.1, k = ∞."""
    mdp = world("grid-4x4")
    value = evaluate(mdp, even(mdp)).value
    shown = [[0, -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, 0]]
    assert np.allclose(value[mdp.grid], shown, atol=1e-9)


def test_grid_5x5_under_the_even_policy_and_the_best():
    """Figures 3.2 and 3.5."""
    mdp = world("grid-5x5")
    value = evaluate(mdp, even(mdp)).value[mdp.grid]
    shown = [
        [3.3, 8.8, 4.4, 5.3, 1.5],
        [1.5, 3.0, 2.3, 1.9, 0.5],
        [0.1, 0.7, 0.7, 0.4, -0.4],
        [-1.0, -0.4, -0.4, -0.6, -1.2],
        [-1.9, -1.3, -1.2, -1.4, -2.0],
    ]
    assert np.abs(value - shown).max() <= 0.05 + 1e-3  # the book rounds 2.250 up
    assert value[0, 1] == pytest.approx(8.789, abs=5e-4)
    best = solve(mdp).value[mdp.grid]
    shown = [
        [22.0, 24.4, 22.0, 19.4, 17.5],
        [19.8, 22.0, 19.8, 17.8, 16.0],
        [17.8, 19.8, 17.8, 16.0, 14.4],
        [16.0, 17.8, 16.0, 14.4, 13.0],
        [14.4, 16.0, 14.4, 13.0, 11.7],
    ]
    assert np.abs(best - shown).max() <= 0.05
    assert best[0, 1] == pytest.approx(10 / (1 - 0.9**5), abs=1e-9)  # A to A' and back up: 5 steps


def test_grid_4x3_of_russell_and_norvig():
    """Figure 17.3 of the third edition."""
    mdp = world("grid-4x3")
    value = np.where(mdp.grid >= 0, solve(mdp).value[mdp.grid], np.nan)
    shown = [[0.812, 0.868, 0.918], [0.762, np.nan, 0.660], [0.705, 0.655, 0.611]]
    assert np.allclose(value[:, :3], shown, atol=5e-4, equal_nan=True)
    assert value[2, 3] == pytest.approx(0.388, abs=5e-4)


@pytest.mark.parametrize(("name", "steps"), [("windy-grid", 15), ("windy-grid-king", 7)])
def test_windy_grid_takes_so_many_steps(name, steps):
    mdp = world(name)
    assert start_value(mdp, solve(mdp).value) == pytest.approx(-steps, abs=1e-9)


def test_stochastic_wind_blows_one_more_or_one_less():
    mdp = world("windy-grid-stochastic")
    rows = mdp.transition
    here = mdp.state("3,6")  # wind 2: one to three rows up
    row = here * 8 + mdp.action("right")
    reached = {mdp.states[s] for s in rows.indices[rows.indptr[row] : rows.indptr[row + 1]]}
    assert reached == {"2,7", "1,7", "0,7"}
    assert np.allclose(rows.data[rows.indptr[row] : rows.indptr[row + 1]], 1 / 3)
    calm = mdp.state("3,0") * 8 + mdp.action("right")
    assert rows.indptr[calm + 1] - rows.indptr[calm] == 1


@pytest.mark.parametrize(
    ("name", "options", "steps"),
    [
        ("dyna-maze", {}, 14),
        ("blocking-maze", {}, 10),
        ("blocking-maze", {"changed": True}, 16),
        ("shortcut-maze", {}, 16),
        ("shortcut-maze", {"changed": True}, 10),
    ],
)
def test_mazes_take_so_many_steps(name, options, steps):
    mdp = world(name, **options)
    value = start_value(mdp, solve(mdp).value)
    assert 1 + log(value) / log(mdp.gamma) == pytest.approx(steps, abs=1e-6)


# --- the cliff ---


def test_cliff_and_slippery_cliff():
    for name, value, within in (("cliff", -13.0, 1e-9), ("cliff-slippery", -64.709, 5e-4)):
        mdp = world(name)
        assert start_value(mdp, solve(mdp).value) == pytest.approx(value, abs=within)


def test_cliff_followed_with_exploration():
    """ε = 0.1: where SARSA can get to, and what Q-learning's path costs while it explores."""
    mdp = world("cliff")
    soft = epsilon_soft(mdp, 0.1)
    safe = solve(soft)
    assert start_value(mdp, safe.value) == pytest.approx(-20.71, abs=5e-3)
    assert start_value(mdp, evaluate(mdp, safe.policy).value) == pytest.approx(-15)
    q = solve(mdp).q
    along = q >= q.max(1, keepdims=True) - 1e-6
    best = start_value(mdp, solve(epsilon_soft(mdp, 0.1, allowed=along)).value)
    worst = -start_value(mdp, solve(epsilon_soft(mdp, 0.1, allowed=along, sign=-1)).value)
    assert best == pytest.approx(-45.8, abs=0.05)
    assert worst < -50.8 < best  # by tie-breaking off the path


# --- ice and taxi ---


@pytest.mark.parametrize(
    ("name", "discounted", "for_ever", "steps", "in_time"),
    [
        ("frozenlake-4x4", 0.542026, 0.823529, 100, 0.744190),
        ("frozenlake-8x8", 0.414640, 1.0, 200, 0.913220),
    ],
)
def test_frozen_lake(name, discounted, for_ever, steps, in_time):
    mdp = world(name)
    assert start_value(mdp, solve(mdp).value) == pytest.approx(discounted, abs=5e-7)
    mdp = world(name, gamma=1.0)
    assert start_value(mdp, solve(mdp).value) == pytest.approx(for_ever, abs=5e-7)
    within = finite_horizon(mdp, steps).value[0]
    assert start_value(mdp, within) == pytest.approx(in_time, abs=5e-7)


@pytest.mark.parametrize(
    ("name", "value", "steps", "alone"),
    [("frozenlake-4x4", 0.99, 100, 0.740165), ("frozenlake-8x8", 0.99, 200, 0.862955)],
)
def test_the_discounted_policy_within_a_step_limit(name, value, steps, alone):
    mdp = world(name, gamma=value)
    chain = mdp.with_gamma(1.0).under(solve(mdp).policy)
    reached = np.zeros(mdp.num_states)
    for _ in range(steps):
        reached = chain.reward + chain.transition @ reached
    assert start_value(mdp, reached) == pytest.approx(alone, abs=5e-6)


def test_the_policy_for_the_lake_ends_where_first_of_equals_never_does():
    """γ = 1 on the 8×8 lake: every state is worth about 1, so ties decide whether the goal is met."""
    mdp = world("frozenlake-8x8", gamma=1.0)
    found = solve(mdp)
    assert start_value(mdp, evaluate(mdp, found.policy).value) == pytest.approx(1, abs=1e-9)
    first_of_equals = np.round(found.q, 6).argmax(axis=1)
    assert start_value(mdp, evaluate(mdp, first_of_equals).value) == 0.0


def test_ice_that_does_not_slip_is_a_shortest_path():
    mdp = world("frozenlake-8x8", slip=0.0)
    assert start_value(mdp, solve(mdp).value) == pytest.approx(0.99**13)


def test_taxi_over_its_300_starts():
    mdp = world("taxi")
    value = solve(mdp).value[mdp.initial > 0]
    assert value.size == 300
    assert (value.mean(), value.min(), value.max()) == pytest.approx((7.93, 3, 15), abs=1e-9)


def reachable(env):
    """States that an episode can visit; Gymnasium's tables hold others too."""
    found = set(np.flatnonzero(env.initial_state_distrib))
    waiting = list(found)
    while waiting:
        for outcomes in env.P[waiting.pop()].values():
            for _, state, _, terminated in outcomes:
                if state not in found:
                    found.add(state)
                    waiting += [] if terminated else [state]
    return found


@pytest.mark.parametrize(
    ("name", "env", "options"),
    [
        ("frozenlake-4x4", "FrozenLake-v1", {"map_name": "4x4"}),
        ("frozenlake-8x8", "FrozenLake-v1", {"map_name": "8x8"}),
        ("taxi", "Taxi-v4", {}),
        ("cliff", "CliffWalking-v1", {}),
        ("cliff-slippery", "CliffWalking-v1", {"is_slippery": True}),
    ],
)
def test_rules_are_those_of_gymnasium(name, env, options):
    gymnasium = pytest.importorskip("gymnasium")
    made = gymnasium.make(env, **options).unwrapped
    mdp = world(name)
    assert np.allclose(mdp.initial, made.initial_state_distrib)
    left = {s for s in reachable(made) if not mdp.terminal[s]}
    for s in left:
        for a, outcomes in made.P[s].items():
            p, paid = np.zeros(mdp.num_states), 0.0
            for probability, next_state, reward, terminated in outcomes:
                p[next_state] += probability
                paid += probability * reward
                assert terminated == mdp.terminal[next_state]
            row = mdp.transition[[s * mdp.num_actions + a]].toarray()[0]
            assert np.allclose(row, p, atol=1e-15), (s, a)
            assert mdp.reward[s, a] == pytest.approx(paid), (s, a)
    ends = {n for s in left for row in made.P[s].values() for _, n, _, done in row if done}
    assert ends == set(np.flatnonzero(mdp.terminal))


# --- chains ---


def test_random_walks():
    mdp = world("random-walk-5")
    value = evaluate(mdp, even(mdp)).value
    assert np.allclose(value[1:6], np.arange(1, 6) / 6)
    assert sqrt(np.mean((0.5 - value[1:6]) ** 2)) == pytest.approx(0.2357, abs=5e-5)
    mdp = world("random-walk-19")
    assert np.allclose(evaluate(mdp, even(mdp)).value[1:20], (np.arange(1, 20) - 10) / 10)
    assert mdp.initial[10] == 1


def test_random_walk_rewards_are_those_of_the_step_taken():
    """A sample of the last step pays 1 or 0, never its mean."""
    mdp = world("random-walk-5")
    row = mdp.state("E")
    kept = slice(mdp.transition.indptr[row], mdp.transition.indptr[row + 1])
    paid = dict(zip(mdp.transition.indices[kept], mdp.reward_next[kept], strict=True))
    assert paid == {mdp.state("D"): 0.0, mdp.state("right"): 1.0}


def test_random_walk_of_1000_states():
    """Symmetric, and nearly the straight line that figure 9.1 shows, bent at the ends."""
    mdp = world("random-walk-1000")
    value = evaluate(mdp, even(mdp)).value[1:1001]
    assert np.allclose(value, -value[::-1], atol=1e-9)
    assert np.abs(value - np.linspace(-1, 1, 1000)).max() < 0.09
    near = mdp.transition[[1]].toarray()[0]
    assert near[0] == pytest.approx(0.5)
    assert near[2] == near[101] == 0.005
    assert near[102] == 0


def test_short_corridor():
    """Going right with probability p: v(p) = (2p - 4) / (p(1 - p)), best at 2 - √2."""
    mdp = world("short-corridor")
    value = {
        p: evaluate(mdp, np.tile([1 - p, p], (4, 1))).value[0] for p in (0.55, 2 - sqrt(2), 0.62)
    }
    for p, v in value.items():
        assert v == pytest.approx((2 * p - 4) / (p * (1 - p)))
    assert max(value, key=value.get) == pytest.approx(0.5858, abs=5e-5)
    assert value[2 - sqrt(2)] == pytest.approx(-11.6569, abs=5e-5)


def test_maximisation_bias_is_a_world_where_right_is_right():
    mdp = world("maximisation-bias", num_actions=7)
    found = solve(mdp)
    assert found.q[0, :2] == pytest.approx([-0.1, 0.0])
    assert mdp.available.sum(1).tolist() == [2, 7, 7]
    assert np.array_equal(mdp.reward_std[1], np.ones(7))


def test_puterman_two_states():
    assert solve(world("puterman-2-state")).value == pytest.approx([-8.5714, -20], abs=5e-5)


def test_two_states_in_closed_form():
    g, p, q = 0.9, 0.3, 0.6
    first = (1 - g * (1 - q)) / ((1 - g) * (1 - g * (1 - p - q)))
    value = evaluate(world("two-state"), np.zeros(2, int)).value
    assert value == pytest.approx([first, g * q * first / (1 - g * (1 - q))])


def test_recycling_robot_by_hand():
    """Search when high, recharge when low: V(high) = 2 + γ(0.9 V(high) + 0.1 V(low)), V(low) = γ V(high)."""
    mdp = world("recycling-robot", gamma=0.9)
    found = solve(mdp)
    high = 2 / (1 - 0.9 * 0.9 - 0.9 * 0.1 * 0.9)
    assert [mdp.actions[a] for a in found.policy] == ["search", "recharge"]
    assert found.value == pytest.approx([high, 0.9 * high])


def test_slippery_chain_goes_ahead():
    """Strens 2000: the best policy always goes ahead and earns 3677 in 1,000 steps."""
    mdp = world("slippery-chain")
    assert (solve(mdp).policy == 0).all()
    assert finite_horizon(mdp.with_gamma(1.0), 1000).value[0, 0] == pytest.approx(3677, rel=0.005)


# --- chance ---


def test_gambler():
    for p_heads in (0.4, 0.25):
        mdp = world("gambler", p_heads=p_heads)
        value = solve(mdp).value
        p = p_heads
        assert value[[25, 50, 75]] == pytest.approx([p * p, p, p + (1 - p) * p], abs=1e-8)
    assert value[1] == pytest.approx(7.2861e-5, abs=5e-9)
    value = solve(world("gambler")).value
    assert value[[51, 99]] == pytest.approx([0.40310, 0.96433], abs=5e-6)


def test_gambler_with_a_good_coin_is_ruined_as_the_formula_says():
    """p > 1/2: stake 1. V(s) = (1 - (q/p)^s) / (1 - (q/p)^n)."""
    value = solve(world("gambler", p_heads=0.55, goal=30)).value
    ratio = 0.45 / 0.55
    assert np.allclose(value[:30], (1 - ratio ** np.arange(30)) / (1 - ratio**30), atol=1e-7)


def test_gambler_may_stake_nothing_but_not_more_than_there_is():
    mdp = world("gambler")
    assert mdp.available[30].sum() == 31
    assert mdp.available[80].sum() == 21


def sticks_from(mdp, least):
    names = [name.split()[0] for name in mdp.states]
    return np.array([int(not (n.isdigit() and int(n) >= least)) for n in names])


def test_blackjack():
    mdp = world("blackjack")
    found = solve(mdp)
    assert start_value(mdp, found.value) == pytest.approx(-0.046556, abs=5e-7)
    stubborn = evaluate(mdp, sticks_from(mdp, 20)).value
    assert start_value(mdp, stubborn) == pytest.approx(-0.353554, abs=5e-7)
    assert stubborn[mdp.state("13 against 2 with ace")] == pytest.approx(-0.277204, abs=5e-7)


@pytest.mark.parametrize("name", ["blackjack", "blackjack-book"])
def test_blackjack_policy_without_an_ace_is_thorps(name):
    """Figure 5.2: stick on 17 always, on 13 against 2 to 6, on 12 against 4 to 6."""
    mdp = world(name)
    policy = solve(mdp).policy
    for total in range(12, 22):
        for dealer in range(1, 11):
            stick = total >= (
                17 if dealer in (1, 7, 8, 9, 10) else 12 if dealer in (4, 5, 6) else 13
            )
            assert (policy[mdp.state(f"{total} against {dealer}")] == 0) == stick, (total, dealer)
    for total, dealer, stick in ((18, 8, True), (18, 9, False), (18, 10, False), (17, 6, False)):
        assert (policy[mdp.state(f"{total} against {dealer} with ace")] == 0) == stick


@pytest.mark.parametrize("dealer", [3, 10])
def test_blackjack_dealer_by_enumerating_every_hand(dealer):
    mdp = world("blackjack")
    for total in (15, 17, 20, 21):
        row = mdp.transition[[mdp.state(f"{total} against {dealer}") * 2]].toarray()[0]
        assert row[-3:] == pytest.approx([float(p) for p in blackjack_stick(total, dealer)])
        assert row[:-3].sum() == 0


def test_a_natural_wins_at_once_in_the_books_blackjack():
    mdp = world("blackjack-book")
    value = solve(mdp).value
    assert value[mdp.state("natural against 5")] == 1
    assert value[mdp.state("natural against 1")] == pytest.approx(9 / 13)
    assert value[mdp.state("natural against 10")] == pytest.approx(12 / 13)
    natural = sum(mdp.initial[mdp.state(f"natural against {d}")] for d in range(1, 11))
    assert natural == pytest.approx(2 * 4 / 13 / 13)
    # Only the naturals differ: they win where another 21 may be equalled.
    plain = world("blackjack")
    other = solve(plain).value
    gained = sum(
        natural
        * p
        * (
            value[mdp.state(f"natural against {d}")]
            - other[plain.state(f"21 against {d} with ace")]
        )
        for d, p in ((d, (4 if d == 10 else 1) / 13) for d in range(1, 11))
    )
    assert start_value(mdp, value) == pytest.approx(start_value(plain, other) + gained)


# --- cars ---


def test_jacks_car_rental():
    mdp = world("jacks-car-rental")
    found = solve(mdp)
    at = [mdp.state("0,0"), mdp.state("10,10"), mdp.state("20,20")]
    assert found.value[at] == pytest.approx([421.414, 574.948, 636.990], abs=5e-4)
    moved = {name: mdp.actions[a] for name, a in zip(mdp.states, found.policy, strict=True)}
    # Corners of figure 4.2, π4.
    assert (moved["20,0"], moved["0,20"], moved["0,0"], moved["10,10"]) == ("+5", "-4", "0", "0")


def test_jacks_cars_of_a_day_by_enumeration():
    mdp = world("jacks-car-rental")
    evening, income = car_lot_day(morning=2, capacity=20, rents=3.0, returns=3.0)
    other, more = car_lot_day(morning=4, capacity=20, rents=4.0, returns=2.0)
    state, action = mdp.state("3,3"), mdp.action("+1")
    row = mdp.transition[[state * 11 + action]].toarray()[0]
    assert np.allclose(row.reshape(21, 21), np.outer(evening, other), atol=1e-13)
    assert mdp.reward[state, action] == pytest.approx(10 * (income + more) - 2)
    assert mdp.reward[mdp.state("3,0"), mdp.action("-1")] == -np.inf


def test_jacks_shuttle_and_parking():
    """Exercise 4.7: moving one car more than before costs nothing, over ten parked cost 4 a lot."""
    before, after = world("jacks-car-rental"), world("jacks-car-rental-shuttle")
    state = before.state("12,5")
    extra = after.reward[state] - before.reward[state]
    by_name = dict(zip(before.actions, extra, strict=True))
    assert by_name == pytest.approx(
        {
            "-5": -4,
            "-4": -4,
            "-3": -4,
            "-2": -4,
            "-1": -4,
            "0": -4,
            "+1": -2,
            "+2": 2,
            "+3": 2,
            "+4": 2,
            "+5": 2,
        }
    )


def test_racetrack_needs_as_few_steps_as_a_search_finds():
    mdp = world("racetrack", noise=0.0)
    value = solve(mdp).value
    for column in range(3, 9):
        fewest = racetrack_fewest_steps(31, column)
        assert value[mdp.state(f"31,{column} at 0,0")] == pytest.approx(-fewest)


def test_racetrack_speeds_and_crashes():
    mdp = world("racetrack")
    speeds = [tuple(map(int, name.split(" at ")[1].split(","))) for name in mdp.states]
    assert all(0 <= up <= 4 and 0 <= right <= 4 for up, right in speeds)
    standing = {name for name, s in zip(mdp.states, speeds, strict=True) if s == (0, 0)}
    assert standing == {f"31,{c} at 0,0" for c in range(3, 9)} | {"-1,-1 at 0,0"}
    row = mdp.transition[[mdp.state("30,8 at 1,0") * 9 + mdp.action("+0,+1")]].toarray()[0]
    assert row[mdp.state("31,3 at 0,0")] == pytest.approx(0.9 / 6)  # off the track at the right
    assert row[mdp.state("29,8 at 1,0")] == pytest.approx(0.1)


# --- the register ---


def test_every_world_is_described():
    assert set(WORLDS) == {*OWN, *PARTIAL_WORLDS, *GAME_WORLDS}
    assert len(WORLDS) == len(OWN) + len(PARTIAL_WORLDS) + len(GAME_WORLDS)
    for name, entry in WORLDS.items():
        assert len(entry.sentence) > 20, name
        assert entry.sentence.endswith("."), name


@pytest.mark.parametrize("name", OWN)
def test_every_world_is_made_and_says_its_source(name):
    made = world(name, gamma=0.5)
    assert isinstance(made, MDP)
    assert made.gamma == 0.5
    assert not made.terminal[made.initial > 0].any()
    assert WORLDS[name].source


@pytest.mark.parametrize(
    "name",
    [n for n in WORLDS if n.startswith(("grid", "cliff", "windy", "frozen", "dyna", "maze"))],
)
def test_grids_are_named_and_drawn(name):
    mdp = world(name)
    shown = mdp.grid[mdp.grid >= 0]
    assert np.unique(shown).size == shown.size
    for r, c in np.argwhere(mdp.grid >= 0):
        assert mdp.states[mdp.grid[r, c]] == f"{r},{c}"
    assert {"up", "right", "down", "left"} <= set(mdp.actions)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("frozenlake8x8", {}, "no world named 'frozenlake8x8' .did you mean 'frozenlake-8x8'"),
        ("gambler", {"p_head": 0.4}, "no option 'p_head' .did you mean 'p_heads'"),
        ("gambler", {"p_heads": 1.0}, "p_heads: 1.0; expected a probability between 0 and 1"),
        ("gambler", {"goal": 1}, "goal: 1; expected 2 or more"),
        ("random-walk-19", {"seed": 1}, "no option 'seed'"),
        ("garnet", {"branching": 101}, "branching: 101; expected 1 to 100"),
        ("garnet", {"num_states": 0}, "num_states: 0; expected 1 or more"),
        ("garnet", {"seed": -1}, "seed: -1"),
        ("maze", {"walls": 1.0}, "walls: 1.0"),
        ("maze", {"walls": 0.95}, "leaves no way through"),
        ("maze", {"rows": 1, "columns": 1}, "a room of 1×1"),
        ("noisy-grid", {"noise": 1.5}, "noise: 1.5; expected a probability"),
        ("grid-4x4", {"gamma": 1.5}, "gamma: 1.5"),
        ("frozenlake-4x4", {"slip": 1.5}, "slip: 1.5; expected a probability"),
        ("maximisation-bias", {"num_actions": 1}, "num_actions: 1; expected 2 or more"),
        ("two-state", {"leave": -0.1}, "leave: -0.1; expected a probability"),
    ],
)
def test_what_is_said_of_wrong_names_and_options(name, options, said):
    with pytest.raises(UserError, match=said):
        world(name, **options)

"""The theory page: what it names exists, what it shows is drawn, and where the notes err, a number says so."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from plaudit.mdp import MDP, MRP
from plaudit.mdp.partial import POMDP, belief_update
from plaudit.mdp.planning import evaluate, finite_horizon, solve
from plaudit.mdp.worlds import world

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "theory" / "finite-worlds.md"
TEXT = PAGE.read_text(encoding="utf-8")

FUNCTIONS = sorted(set(re.findall(r"`((?:plaudit|studies)\.[\w.]+)`", TEXT)))
TESTS = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)))
PICTURES = sorted(set(re.findall(r"!\[[^\]]*\]\((\.\./images/[^)]+)\)", TEXT)))


def found(dotted):
    """The object of a dotted name: the longest module, then attributes."""
    parts = dotted.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part)
        return thing
    raise ModuleNotFoundError(dotted)


def test_the_page_names_much():
    assert len(FUNCTIONS) > 40
    assert len(TESTS) > 40
    assert len(PICTURES) > 20


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_the_page_exists(name):
    assert found(name) is not None


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_every_test_of_the_page_exists(path, name):
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("path", PICTURES)
def test_every_picture_of_the_page_is_there(path):
    assert (PAGE.parent / path).read_bytes().startswith(b"\x89PNG")


def test_every_picture_in_the_folder_is_shown_and_drawn_by_the_script():
    shown = {Path(path).name for path in PICTURES}
    there = {path.name for path in (ROOT / "docs" / "images" / "mdp").glob("*.png")}
    script = (ROOT / "docs" / "figures" / "finite_worlds.py").read_text(encoding="utf-8")
    drawn = re.search(r"FIGURES.*?= \((.*?)\n\)", script, re.DOTALL)[1]
    made = {f"{name.replace('_', '-')}.png" for name in re.findall(r"\w+", drawn)}
    assert shown == there == made


# --- the identities of section 1, by every path that there is ---

P = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.0, 0.9, 0.1]])
PAID = np.array([[1.0, -2.0, 0.0], [3.0, 0.5, -1.0], [0.0, 4.0, 2.0]])
GAMMA, STEPS = 0.8, 6
CHAIN = MDP(P[None], PAID[None], GAMMA)


def paths(first, steps):
    """(probability, states, return) of every path of so many steps."""
    for rest in itertools.product(range(3), repeat=steps):
        states = (first, *rest)
        moves = list(itertools.pairwise(states))
        p = np.prod([P[s, t] for s, t in moves])
        if p > 0:
            yield p, states, sum(GAMMA**k * PAID[s, t] for k, (s, t) in enumerate(moves))


def test_the_value_is_the_mean_return_of_all_paths():
    value = finite_horizon(CHAIN, STEPS).value
    for s in range(3):
        mean = sum(p * gain for p, _, gain in paths(s, STEPS))
        assert value[0, s] == pytest.approx(mean, abs=1e-12)
    for_ever = evaluate(CHAIN, [0, 0, 0]).value
    beyond = GAMMA**STEPS * np.abs(for_ever).max()
    assert np.abs(value[0] - for_ever).max() <= beyond


def test_the_next_return_and_the_next_value_have_one_mean():
    """E[G_{t+1} | s_t] = E[V(s_{t+1}) | s_t], the step on which Bellman's equation rests."""
    next_value = finite_horizon(CHAIN, STEPS).value[1]
    for s in range(3):
        rest = sum(
            p * (gain - PAID[states[0], states[1]]) / GAMMA for p, states, gain in paths(s, STEPS)
        )
        assert rest == pytest.approx(P[s] @ next_value, abs=1e-12)


def test_the_value_is_the_policys_mean_of_q():
    rng = np.random.default_rng(1)
    world = MDP(rng.dirichlet(np.ones(4), size=(3, 4)), rng.normal(size=(3, 4, 4)), 0.9)
    policy = rng.dirichlet(np.ones(3), size=4)
    answer = evaluate(world, policy)
    assert answer.value == pytest.approx((policy * answer.q).sum(1), abs=1e-12)
    ahead = np.einsum("ast,t->sa", world.dense(), answer.value)
    assert answer.q == pytest.approx(world.reward + 0.9 * ahead, abs=1e-12)
    # Q in terms of the next Q: the sum is over the next action.
    next_q = np.einsum("ast,tb,tb->sa", world.dense(), policy, answer.q)
    assert answer.q == pytest.approx(world.reward + 0.9 * next_q, abs=1e-12)


# --- where the notes err ---


def test_the_next_return_is_no_function_of_the_next_state():
    gains = {round(gain, 9) for _, states, gain in paths(0, 3) if states[1] == 1}
    assert len(gains) > 1


def test_a_value_with_a_deadline_depends_on_the_time():
    value = finite_horizon(CHAIN, STEPS).value
    assert np.abs(value[0] - value[3]).min() > 0.1
    stationary = CHAIN.reward[:, 0] + GAMMA * P @ value[0]
    assert np.abs(stationary - value[0]).max() > 0.1


def test_the_reward_of_a_policy_is_no_sum_over_next_states_alone():
    """Two actions lead to x; one pays 0 there and one 4. R_π = 1, and p_π(x) = 3/4.

    A reward that depended on x alone would have to be 4/3, which nothing in this world pays.
    """
    transition = np.zeros((2, 3, 3))
    transition[0, 0] = [0, 1, 0]
    transition[1, 0] = [0, 0.5, 0.5]
    transition[:, 1, 1] = transition[:, 2, 2] = 1
    paid = np.zeros((2, 3, 3))
    paid[1, 0, 1] = 4
    chain = MDP(transition, paid, 0.9).under(np.full((3, 2), 0.5))
    assert chain.reward[0] == 1
    assert chain.transition.toarray()[0].tolist() == [0, 0.75, 0.25]


def test_a_chain_does_not_tell_which_world_it_came_from():
    stay, swap = np.eye(2), np.eye(2)[::-1]
    one = MDP([stay, swap], [[0.0, 2.0], [0.0, 2.0]], 0.9)
    other = MDP([stay / 2 + swap / 2], [[1.0], [1.0]], 0.9)
    left, right = one.under(np.full((2, 2), 0.5)), other.under([0, 0])
    assert np.array_equal(left.transition.toarray(), right.transition.toarray())
    assert np.array_equal(left.reward, right.reward)
    assert solve(one).value == pytest.approx([20, 20])
    assert solve(other).value == pytest.approx([10, 10])


def test_a_value_is_reward_plus_next_value_only_on_average():
    value = evaluate(CHAIN, [0, 0, 0]).value
    error = PAID + GAMMA * value[None, :] - value[:, None]
    assert np.abs(error[P > 0]).min() > 1e-3
    assert (P * error).sum(1) == pytest.approx(np.zeros(3), abs=1e-12)
    undiscounted = (P * (PAID + value[None, :] - value[:, None])).sum(1)
    assert np.abs(undiscounted).max() > 0.1


def test_sweeps_are_not_values_of_the_policy_before_the_limit():
    """V^k from 0 is what k steps are worth: the index counts sweeps, not time."""
    value = np.zeros(3)
    for _ in range(STEPS):
        value = CHAIN.reward[:, 0] + GAMMA * P @ value
    assert value == pytest.approx(finite_horizon(CHAIN, STEPS).value[0])
    assert np.abs(value - evaluate(CHAIN, [0, 0, 0]).value).max() > 0.1


def test_one_policy_is_best_in_every_state_at_once():
    """argmax over policies of V_π(s) does not depend on s: all 3^4 policies are compared."""
    rng = np.random.default_rng(2)
    world = MDP(rng.dirichlet(np.ones(4), size=(3, 4)), rng.normal(size=(4, 3)), 0.9)
    best = solve(world)
    values = [evaluate(world, list(p)).value for p in itertools.product(range(3), repeat=4)]
    assert np.max(values, axis=0) == pytest.approx(best.value, abs=1e-8)
    assert evaluate(world, best.policy).value == pytest.approx(best.value, abs=1e-8)


def test_one_sees_where_one_has_come_to():
    """Two rooms with a lamp in the right one; moving always changes the room, and one sees the lamp.

    O(o | a, s') of the room reached: surely right. Read as (o | s, a) it would be surely left.
    """
    swap, seen = np.eye(2)[::-1], np.eye(2)
    rooms = POMDP(swap[None], seen[None], np.zeros((2, 1)), 0.9, observations=["dark", "lamp"])
    belief, probability = belief_update(rooms, [0.9, 0.1], 0, "lamp")
    assert belief.tolist() == [0, 1]
    assert probability == pytest.approx(0.9)


def test_the_belief_of_the_tiger_by_hand():
    """Heard left once: 0.85; twice: 0.85² / (0.85² + 0.15²)."""
    tiger = world("tiger")
    once, _ = belief_update(tiger, [0.5, 0.5], "listen", 0)
    twice, _ = belief_update(tiger, once, "listen", 0)
    assert once == pytest.approx([0.85, 0.15])
    assert twice[0] == pytest.approx(0.85**2 / (0.85**2 + 0.15**2))


def test_one_sample_of_a_log_ratio_is_no_divergence():
    p, q = np.array([0.7, 0.3]), np.array([0.5, 0.5])
    ratio = np.log(p / q)
    assert ratio.min() < 0 < ratio.max()
    assert p @ ratio > 0
    assert p @ -ratio < 0  # ref - actor, as the note first has it, is minus the divergence


def test_a_chain_has_no_policy():
    with pytest.raises(ValueError, match="takes no policy"):
        evaluate(MRP(P, [0.0, 0, 0], GAMMA), [0, 0, 0])

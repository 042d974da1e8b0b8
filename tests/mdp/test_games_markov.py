"""Markov games: closed forms, brute force, best answers by the planners, minimax-Q's limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from oracles.finite import best_by_enumeration
from oracles.games import left_to_the_other, shapley_by_kernels
from plaudit.mdp.games import MarkovGame, MatrixGame, minimax_q, nash_zero_sum, shapley
from plaudit.mdp.planning import solve
from plaudit.mdp.worlds.games import GAME_WORLDS, big_match, soccer
from plaudit.records.errors import UserError


def random_game(seed, *, gamma=0.8, num_states=3, num_actions=None):
    rng = np.random.default_rng(seed)
    first, second = num_actions or (int(n) for n in rng.integers(1, 4, 2))
    shape = (num_states, first, second)
    transition = rng.dirichlet(np.full(num_states, 0.5), size=shape)
    reward = rng.integers(-3, 4, size=shape).astype(float)
    return transition, reward, MarkovGame(transition, reward, gamma)


# --- Shapley's iteration


@given(st.floats(0.05, 0.95))
@settings(max_examples=15)
def test_the_big_match_is_worth_a_half_at_any_discount(gamma):
    found = shapley(big_match(gamma), tol=1e-10)
    assert (1 - gamma) * found.value == pytest.approx([0.5, 0, 1], abs=1e-9)
    assert found.policies[0][0, 1] == pytest.approx((1 - gamma) / (2 - gamma), abs=1e-7)
    assert found.policies[1][0] == pytest.approx([0.5, 0.5], abs=1e-7)


def test_one_state_is_a_repeated_matrix_game():
    paid = np.array([[3.0, -1.0], [-2.0, 1.0]])
    game = MarkovGame(np.ones((1, 2, 2, 1)), paid[None], 0.75)
    value = (3 * 1 - (-1) * (-2)) / (3 + 1 + 1 + 2)  # 1/7
    assert shapley(game).value == pytest.approx([value / 0.25], abs=1e-8)


@given(st.integers(0, 10_000))
@settings(max_examples=12)
def test_shapley_agrees_with_brute_force(seed):
    transition, reward, game = random_game(seed, gamma=0.6)
    found = shapley(game, tol=1e-10)
    assert found.bound <= 1e-10
    slow = shapley_by_kernels(transition, reward, 0.6, sweeps=50)
    reach = 0.6**50 * 3 / 0.4
    assert np.abs(found.value - slow).max() <= found.bound + reach + 1e-8


@given(st.integers(0, 10_000))
@settings(max_examples=15)
def test_both_policies_guarantee_the_value_against_every_best_answer(seed):
    transition, reward, game = random_game(seed)
    found = shapley(game, tol=1e-9)
    x, y = found.policies
    moves, paid = left_to_the_other(transition, reward, y)
    most = best_by_enumeration(moves, paid, 0.8)
    assert (most <= found.value + found.bound + 1e-12).all()
    moves, paid = left_to_the_other(transition.transpose(0, 2, 1, 3), -reward.transpose(0, 2, 1), x)
    least = -best_by_enumeration(moves, paid, 0.8)
    assert (least >= found.value - found.bound - 1e-12).all()


def test_a_loose_tolerance_keeps_its_promise():
    for seed in range(10):
        _, _, game = random_game(seed, gamma=0.95)
        loose, tight = shapley(game, tol=0.3), shapley(game, tol=1e-9)
        assert 1e-6 < loose.bound <= 0.3
        assert np.abs(loose.value - tight.value).max() <= loose.bound + tight.bound
        x, y = loose.policies
        least = -solve(game.against(x, player=1)).value
        most = solve(game.against(y, player=0)).value
        assert (least >= tight.value - 2 * loose.bound - 1e-7).all()
        assert (least >= loose.value - loose.bound - 1e-7).all()
        assert (most <= loose.value + loose.bound + 1e-7).all()


def test_what_is_left_against_a_policy_is_the_sum_over_it():
    transition, reward, game = random_game(4)
    rng = np.random.default_rng(5)
    first, second = game.num_actions
    y = rng.dirichlet(np.ones(second), size=3)
    moves, paid = left_to_the_other(transition, reward, y)
    world = game.against(y, player=0)
    assert np.allclose(world.dense(), moves, atol=1e-15)
    assert np.allclose(world.reward, paid, atol=1e-15)
    x = rng.dirichlet(np.ones(first), size=3)
    turned = left_to_the_other(transition.transpose(0, 2, 1, 3), -reward.transpose(0, 2, 1), x)
    world = game.against(x, player=1)
    assert np.allclose(world.dense(), turned[0], atol=1e-15)
    assert np.allclose(world.reward, turned[1], atol=1e-15)


def test_a_stage_is_a_matrix_game():
    transition, reward, game = random_game(9)
    value = np.array([1.0, -2.0, 0.5])
    stage = game.stage(value, 2)
    assert isinstance(stage, MatrixGame)
    assert np.allclose(stage.payoffs[0], reward[2] + 0.8 * transition[2] @ value)
    assert stage.zero_sum
    found = shapley(game)
    for s in range(3):
        expected = nash_zero_sum(game.stage(found.value, s)).value
        assert found.value[s] == pytest.approx(expected, abs=1e-7)


def test_dense_and_sparse_are_the_same_game():
    transition, reward, game = random_game(2)
    rows = sparse.csr_array(transition.reshape(-1, 3))
    other = MarkovGame(rows, np.stack([reward, -reward]), 0.8)
    assert other.zero_sum
    assert np.array_equal(shapley(other).value, shapley(game).value)


def test_rounding_and_rows_that_sum_to_nearly_one_widen_the_bound():
    transition, reward, _ = random_game(3, num_actions=(2, 2))
    nearly = MarkovGame(transition * (1 + 5e-9), reward, 0.99)
    found = shapley(nearly, tol=1e-12)
    assert found.bound > 1e-7  # 5e-9 in each row, a hundred steps deep: more cannot be promised
    exact = shapley(MarkovGame(transition, reward, 0.99), tol=1e-9)
    assert exact.bound <= 1e-9
    assert 1e-9 < np.abs(found.value - exact.value).max() <= found.bound


# --- soccer


@pytest.fixture(scope="module")
def field():
    return soccer()


@pytest.fixture(scope="module")
def field_solution(field):
    return shapley(field, tol=1e-6)


def mirrored(field):
    """The field turned by half, with the players' roles exchanged: the number of each state."""
    turned = []
    for name in field.states[:-1]:
        a, b = name[1 : name.index("B")], name[name.index("B") + 1 : name.index("ball")]
        places = [tuple(int(n) for n in place.strip("()").split(",")) for place in (a, b)]
        (row_a, column_a), (row_b, column_b) = [(3 - r, 4 - c) for r, c in places]
        ball = "B" if name.endswith("A") else "A"
        turned.append(field.states.index(f"A({row_b},{column_b})B({row_a},{column_a})ball{ball}"))
    return np.array([*turned, len(turned)])


def test_soccer_is_littmans_field(field):
    assert (field.num_states, field.num_actions) == (761, (5, 5))
    assert field.terminal.sum() == 1
    begin = np.flatnonzero(field.initial)
    assert [field.states[s] for s in begin] == ["A(2,3)B(1,1)ballA", "A(2,3)B(1,1)ballB"]
    # A beside its goal with the ball, B far away: west scores whatever B does.
    s = field.states.index("A(1,0)B(3,4)ballA")
    west = field.actions[0].index("west")
    assert (field.reward[0, s, west] == 1).all()
    # In a corner row there is no goal.
    s = field.states.index("A(0,0)B(3,4)ballA")
    assert (field.reward[0, s] == 0).all()
    # Running into the other loses the ball; if the other moves first into A, it has no ball to lose.
    s = field.states.index("A(1,2)B(1,1)ballA")
    row = (s * 5 + west) * 5 + field.actions[1].index("stand")
    after = field.transition[[row]].tocoo()
    assert [field.states[t] for t in after.coords[1]] == ["A(1,2)B(1,1)ballB"]


def test_soccer_is_fair_and_needs_mixing(field, field_solution):
    value = field_solution.value
    assert np.abs(value + value[mirrored(field)]).max() <= 2 * field_solution.bound
    assert field.initial @ value == pytest.approx(0, abs=field_solution.bound)
    begin = np.flatnonzero(field.initial)
    assert value[begin[0]] > 0.1  # the ball is worth having
    x = field_solution.policies[0]
    assert ((x > 0.01).sum(1) > 1).any()
    assert np.abs(value).max() <= 1 + field_solution.bound


def test_soccers_policies_cannot_be_beaten(field, field_solution):
    x, y = field_solution.policies
    allowed = field_solution.bound + 1e-7
    assert (-solve(field.against(x, player=1)).value >= field_solution.value - allowed).all()
    assert (solve(field.against(y, player=0)).value <= field_solution.value + allowed).all()
    # Any pure policy can be: what Littman's experiment is about.
    pure = np.eye(5)[x.argmax(1)]
    begin = np.flatnonzero(field.initial)
    beaten = -solve(field.against(pure, player=1)).value
    assert (beaten[begin] < field_solution.value[begin] - 0.01).any()


# --- minimax-Q


@pytest.mark.parametrize("seed", range(3))
def test_minimax_q_converges_to_shapleys_values(seed):
    _, _, game = random_game(11, gamma=0.7, num_actions=(2, 3))
    truth = shapley(game)
    assert (truth.policies[0].max(1) < 0.99).any()  # some state needs mixing
    num_steps = 400_000
    learned = minimax_q(
        game, num_steps=num_steps, alpha_decay=10 ** (-3 / num_steps), epsilon=0.5, seed=seed
    )
    assert learned.alpha == pytest.approx(1e-3, rel=1e-6)
    spread = np.ptp(truth.value) + 1
    assert np.abs(learned.value - truth.value).max() < 0.05 * spread
    x, _ = learned.policies
    least = -solve(game.against(x, player=1)).value
    assert (least > truth.value - 0.1 * spread).all()


def test_minimax_q_continues_exactly():
    _, _, game = random_game(12)
    keys = {"alpha_decay": 0.999, "epsilon": 0.3}
    whole = minimax_q(game, num_steps=1000, seed=4, **keys)
    part = minimax_q(game, num_steps=300, seed=4, **keys)
    before = part.q.copy()
    rest = minimax_q(game, num_steps=700, start=part, **keys)
    for name in ("q", "value", "rng"):
        assert np.array_equal(getattr(whole, name), getattr(rest, name))
    assert (whole.num_steps, whole.alpha, whole.state) == (rest.num_steps, rest.alpha, rest.state)
    assert np.array_equal(part.q, before)
    assert not np.array_equal(whole.q, minimax_q(game, num_steps=1000, seed=5, **keys).q)


def test_minimax_q_by_hand():
    # One state, one action each, reward 1, γ = 1/2, α = 1/2:
    # Q: 0 → 0.5; → 0.5 + 0.5 (1.25 - 0.5) = 0.875.
    game = MarkovGame(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1)), 0.5)
    learned = minimax_q(game, num_steps=2, alpha=0.5)
    assert learned.q.ravel() == pytest.approx([0.875])


def test_minimax_q_begins_again_after_a_goal():
    # 0 → over: every episode is one step long, so that all steps are taken in state 0.
    transition = np.zeros((2, 2, 2, 2))
    transition[..., 1] = 1
    reward = np.zeros((2, 2, 2))
    reward[0] = [[1, -1], [-1, 1]]
    learned = minimax_q(MarkovGame(transition, reward, 0.9), num_steps=200, epsilon=1.0)
    assert np.array_equal(learned.q[0], reward[0])
    assert learned.state == 0
    assert (learned.q[1] == 0).all()
    assert learned.value[0] == pytest.approx(0, abs=1e-12)


# --- what is refused


def broken_rows():
    transition = np.full((2, 2, 2, 2), 0.5)
    transition[1, 0, 1] = [0.5, 0.4]
    return transition


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: MarkovGame(broken_rows(), np.zeros((2, 2, 2)), 0.9),
            r"state 1, action 1 \(0, 1\): probabilities sum to 0.9, not 1",
        ),
        (
            lambda: MarkovGame(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), 0.9),
            r"transition: shape \(2, 2, 2\); expected \(2, 2, 2, 2\) or \(8, 2\)",
        ),
        (lambda: MarkovGame(broken_rows(), np.zeros((2, 2)), 0.9), r"reward: shape \(2, 2\)"),
        (
            lambda: MarkovGame(broken_rows(), np.full((2, 2, 2), np.inf), 0.9),
            r"reward: player 0, state 0, actions \(0, 0\) has inf",
        ),
        (lambda: shapley(big_match(1.0)), "gamma = 1: a Markov game needs gamma < 1"),
        (lambda: shapley(big_match(), tol=0), "tol: 0; expected"),
        (
            lambda: shapley(MarkovGame(np.ones((1, 1, 1, 1)), np.ones((2, 1, 1, 1)), 0.5)),
            "not zero sum",
        ),
        (lambda: minimax_q(big_match(), num_steps=-1), "num_steps: -1"),
        (lambda: minimax_q(big_match(), num_steps=1, epsilon=2), "epsilon: 2; expected"),
        (lambda: big_match().against(np.ones((2, 2)), player=0), r"policy of player 1: shape"),
        (
            lambda: big_match().against([[1, 0], [1, 1], [1, 0]], player=0),
            "policy of player 1, state 1: probabilities sum to 2",
        ),
        (lambda: big_match().stage([0, 0], 0), r"value: shape \(2,\); expected \[2, 3\] or \[3\]"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


def test_every_game_of_the_list_can_be_made():
    for name, make in GAME_WORLDS.items():
        assert isinstance(make(), MatrixGame | MarkovGame), name

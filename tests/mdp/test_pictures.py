"""Pictures say the numbers that planners compute, in the right cells, and leave no global state."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.mdp import MDP, MRP
from plaudit.mdp.pictures import (
    Curves,
    alpha_vectors,
    backup_diagram,
    best_actions,
    convergence,
    learning_curves,
    lines,
    policy_on_grid,
    q_backup_diagram,
    q_table_picture,
    study_curves,
    value_on_grid,
    value_panels,
)
from plaudit.mdp.planning import evaluate, solve
from plaudit.mdp.worlds import world
from plaudit.records.errors import UserError


def words(figure):
    """Every text of a figure with its place: axes texts and annotations."""
    return [
        (text.get_text(), *text.xy)
        if hasattr(text, "xy")
        else (text.get_text(), *text.get_position())
        for axes in figure.axes
        for text in axes.texts
    ]


def as_png(figure):
    written = io.BytesIO()
    figure.savefig(written, format="png")
    return written.getvalue()


def test_values_stand_in_their_cells():
    mdp = world("grid-5x5")
    value = evaluate(mdp, np.full((25, 4), 0.25)).value
    shown = {(round(y), round(x)): text for text, x, y in words(value_on_grid(mdp, value))}
    for (r, c), s in np.ndenumerate(mdp.grid):
        assert float(shown[r, c].replace("−", "-")) == pytest.approx(value[s], abs=5e-3)


def test_walls_ends_and_the_start_are_told_apart():
    mdp = world("frozenlake-4x4")
    figure = value_on_grid(mdp, solve(mdp).value)
    named = {(y, x): text for text, x, y in words(figure) if text in ("end", "goal")}
    assert named == {(1, 1): "end", (1, 3): "end", (2, 3): "end", (3, 0): "end", (3, 3): "goal"}
    cells = world("dyna-maze")
    image = value_on_grid(cells, np.zeros(54)).axes[0].images[0].get_array()
    assert np.array_equal(image.mask, (cells.grid < 0) | (cells.grid == 8))


def test_arrows_point_where_the_action_goes():
    mdp = world("windy-grid-king")
    policy = np.arange(mdp.num_states) % 8
    arrows = [
        t
        for t in policy_on_grid(mdp, policy).axes[0].texts
        if getattr(t, "arrow_patch", None) is not None
    ]
    drawn = {}
    for arrow in arrows:
        head, tail = np.array(arrow.xy), np.array(arrow.xyann)
        cell = np.rint((head + tail) / 2).astype(int)
        drawn[int(mdp.grid[cell[1], cell[0]])] = tuple(np.sign(np.round(head - tail, 9)))
    steps = {"up": (0, -1), "right": (1, 0), "down": (0, 1), "left": (-1, 0)}
    steps |= {"up-right": (1, -1), "down-right": (1, 1), "down-left": (-1, 1), "up-left": (-1, -1)}
    assert set(drawn) == set(np.flatnonzero(~mdp.terminal))
    assert all(drawn[s] == steps[mdp.actions[policy[s]]] for s in drawn)


def test_all_best_actions_are_drawn():
    mdp = world("grid-5x5")
    rows = best_actions(solve(mdp).q)
    assert np.allclose(rows.sum(1), 1)
    assert np.array_equal(np.flatnonzero(rows[mdp.state("0,1")]), [0, 1, 2, 3])  # A: all alike
    assert rows[mdp.state("4,4")].tolist() == [0.5, 0, 0, 0.5]  # figure 3.5
    arrows = [
        t
        for t in policy_on_grid(mdp, rows).axes[0].texts
        if getattr(t, "arrow_patch", None) is not None
    ]
    assert len(arrows) == (rows > 0).sum()


def test_actions_without_a_direction_are_written():
    mdp = world("jacks-car-rental", capacity=4, most_moved=2)
    found = solve(mdp)
    shown = {(y, x): text for text, x, y in words(policy_on_grid(mdp, found.policy))}
    for (r, c), s in np.ndenumerate(mdp.grid):
        assert shown[r, c].replace("−", "-") == mdp.actions[found.policy[s]]


def test_large_grids_are_drawn_in_colours():
    mdp = world("maze", rows=60, columns=50, noise=0.1)
    found = solve(mdp)
    shown = policy_on_grid(mdp, found.policy).axes[0].images[0].get_array()
    inside = mdp.grid >= 0
    assert np.array_equal(shown.mask, ~inside)
    assert np.array_equal(shown[inside], found.policy[mdp.grid[inside]])
    assert len(value_on_grid(mdp, found.value).axes) == 2  # the second is the scale


def values_in(figure, kind):
    """Numbers of nodes by name, as `V = 0.83` says below a name."""
    found = {}
    for text, *_ in words(figure):
        name, _, rest = text.partition("\n")
        if rest.startswith(f"{kind} = "):
            found.setdefault(name, []).append(float(rest.split(" = ")[1].replace("−", "-")))
    return found


def test_backup_diagram_of_a_policy_adds_up():
    mdp = world("recycling-robot")
    policy = np.array([[0.5, 0.5, 0], [0.3, 0.3, 0.4]])
    exact = evaluate(mdp, policy)
    figure = backup_diagram(mdp, "low", policy=policy)
    pairs, states = values_in(figure, "Q"), values_in(figure, "V")
    assert pairs == {
        name: [pytest.approx(exact.q[1, a], abs=6e-4)] for a, name in enumerate(mdp.actions)
    }
    assert states["low"][0] == pytest.approx(exact.value[1], abs=6e-4)  # root or leaf: one value
    weights = sorted(text for text, *_ in words(figure) if text.startswith("π"))
    assert weights == ["π 0.3", "π 0.3", "π 0.4"]


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_root_is_one_backup_of_the_leaves(seed):
    """With any values at the leaves, not only with true ones."""
    rng = np.random.default_rng(seed)
    mdp = world("garnet", num_states=4, num_actions=3, branching=2, seed=seed)
    value, policy = rng.normal(size=4), rng.dirichlet(np.ones(3), size=4)
    q = mdp.reward + mdp.gamma * np.einsum("ast,t->sa", mdp.dense(), value)
    best = values_in(backup_diagram(mdp, 2, value=value), "V")["2"]
    assert any(abs(v - q[2].max()) < 6e-4 for v in best)
    expected = values_in(backup_diagram(mdp, 2, policy=policy, value=value), "V")["2"]
    assert any(abs(v - policy[2] @ q[2]) < 6e-4 for v in expected)
    below = (policy * q).sum(1)
    root = mdp.reward[1, 0] + mdp.gamma * mdp.dense()[0, 1] @ below
    shown = values_in(q_backup_diagram(mdp, 1, 0, policy=policy, value=value), "Q")["1, 0"]
    assert shown == [pytest.approx(root, abs=6e-4)]


def test_backup_diagram_of_a_chain_and_of_an_end():
    chain = MRP([[0.5, 0.5], [0, 1]], [1.0, 0.0], 1.0, states=["on", "off"])
    assert values_in(backup_diagram(chain, "on"), "V") == {
        "on, R 1": [2.0],
        "on": [2.0],
        "off": [0.0],
    }
    lake = world("frozenlake-4x4")
    assert values_in(backup_diagram(lake, "3,3"), "V") == {"3,3": [0.0]}


def test_convergence_draws_the_trace_and_the_proof():
    found = solve(world("frozenlake-8x8"), "value_iteration", tol=1e-6)
    axes = convergence(found, tol=1e-6).axes[0]
    assert np.array_equal(axes.lines[0].get_ydata(), found.trace[found.trace > 0])
    assert axes.lines[1].get_ydata()[0] == found.bound
    assert axes.lines[2].get_ydata()[0] == 1e-6


def test_learning_curves_draw_the_mean_and_its_interval():
    runs = np.random.default_rng(0).normal(size=(25, 40)) + np.arange(40)
    axes = learning_curves({"a": runs, "b": runs + 1}, smooth=4).axes[0]
    mean = np.stack([runs[:, i : i + 4].mean(1) for i in range(37)], axis=1)
    assert np.allclose(axes.lines[0].get_ydata(), mean.mean(0))
    band = axes.collections[0].get_paths()[0].vertices
    half = 1.96 * mean.std(0, ddof=1) / 5
    assert band[:, 1].max() == pytest.approx((mean.mean(0) + half).max())
    one = learning_curves({"one run": np.arange(5.0)}, references={"best": 3.0}).axes[0]
    assert len(one.collections) == 0
    assert one.lines[1].get_ydata()[0] == 3.0


def test_what_diverged_is_left_out():
    curves = {"n = 1": ([0.1, 0.2, 0.3], [1.0, np.inf, np.nan])}
    axes = lines(curves, xlabel="α", ylabel="RMS").axes[0]
    assert axes.lines[0].get_xdata().tolist() == [0.1]


def test_a_study_is_drawn_with_its_error():
    x = np.arange(1.0, 5.0)
    study = Curves(x, {"TD": x**2}, {"TD": np.full(4, 0.5)}, "episodes", "RMS error")
    axes = study_curves(study).axes[0]
    assert np.array_equal(axes.lines[0].get_ydata(), x**2)
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.max(), band.min()) == pytest.approx((16 + 0.98, 1 - 0.98))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("episodes", "RMS error")


def test_q_table_marks_the_best_of_each_state():
    """The table of the notes: S1's best is a1, S5's is a4."""
    q = np.array([[22.0, 21.0, 21.6, 11.6], [14.4, 15.4, 15.1, 35.1], [1.0, -np.inf, 0.0, 1.0]])
    axes = q_table_picture(q).axes[0]
    bold = {text.get_position() for text in axes.texts if text.get_weight() == "bold"}
    assert bold == {(0, 0), (1, 3), (2, 0), (2, 3)}
    assert len(axes.patches) == 4
    assert not [t for t in axes.texts if t.get_position() == (2, 1)]


def test_alpha_vectors_show_the_upper_surface():
    axes = alpha_vectors([[1, 0], [0, 1], [0.4, 0.4]], [0, 1, 2]).axes[0]
    surface = [line for line in axes.lines if line.get_linewidth() > 2]
    assert len(surface) == 2  # the third never leads
    x = surface[1].get_xdata()
    assert np.nanmin(np.where(np.isnan(surface[1].get_ydata()), np.nan, x)) == pytest.approx(
        0.5, abs=1e-3
    )


def test_panels_share_one_scale():
    figure = value_panels(
        {"a": [[0.0, 1.0]] * 2, "b": [[2.0, 3.0]] * 2}, xlabel="x", ylabel="y", x=[0, 1], y=[0, 1]
    )
    assert {axes.images[0].get_clim() for axes in figure.axes[:2]} == {(0.0, 3.0)}
    chosen = {"a": [[0.0, 1.0]] * 2}
    figure = value_panels(
        chosen, xlabel="x", ylabel="y", x=[0, 1], y=[0, 1], words=["stick", "hit"]
    )
    assert figure.axes[0].images[0].get_clim() == (-0.5, 1.5)
    assert [t.get_text() for t in figure.axes[1].get_yticklabels()] == ["stick", "hit"]


def test_settings_of_the_caller_are_as_before_and_pyplot_is_not_loaded():
    code = (
        "import sys; from plaudit.mdp.pictures import value_on_grid;"
        "assert 'matplotlib' not in sys.modules;"
        "import matplotlib; before = dict(matplotlib.rcParams);"
        "from plaudit.mdp.worlds import world; import numpy as np;"
        "value_on_grid(world('grid-4x4'), np.arange(16.0)).savefig('/dev/null', format='png');"
        "assert dict(matplotlib.rcParams) == before;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def ink_outside(figure, margin=2):
    """Whether anything is drawn on the outermost pixels, as clipped text would be."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    edge = np.ones(pixels.shape[:2], bool)
    edge[margin:-margin, margin:-margin] = False
    return bool((pixels[edge] < 250).any())


def test_nothing_is_clipped():
    lake, robot = world("frozenlake-4x4"), world("recycling-robot")
    found = solve(lake)
    pictures = {
        "value": value_on_grid(lake, found.value, title="Value", xlabel="x", ylabel="y"),
        "policy": policy_on_grid(lake, found.policy),
        "walk": value_on_grid(world("random-walk-5"), np.zeros(7)),
        "backup": backup_diagram(lake, "2,2"),
        "robot": backup_diagram(robot, "low"),
        "pair": q_backup_diagram(robot, "low", "search"),
        "convergence": convergence(found, tol=1e-8),
        "learning": learning_curves({"a": np.zeros((2, 5))}, references={"best": 1.0}),
        "table": q_table_picture(found.q, title="Q"),
        "alpha": alpha_vectors([[1, 0], [0, 1]], [0, 1]),
    }
    assert [name for name, figure in pictures.items() if ink_outside(figure)] == []
    pictures["table"].text(0.99, 0.5, "cut off")
    assert ink_outside(pictures["table"])


def no_grid():
    return MDP(np.ones((1, 1, 1)), [[0.0]], 0.5)


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: value_on_grid(no_grid(), [0.0]), "has no grid to draw on"),
        (lambda: value_on_grid(world("grid-4x4"), np.zeros(15)), r"shape \(15,\); expected \[16\]"),
        (lambda: policy_on_grid(world("grid-4x4"), np.full(16, 9)), "state 0 has action 9"),
        (lambda: backup_diagram(world("grid-4x4"), "9,9"), "no state named '9,9'"),
        (lambda: backup_diagram(world("grid-4x4"), 3, value=[1.0]), r"expected \[16\]"),
        (lambda: backup_diagram(world("random-walk-1000"), 500, value=np.zeros(1002)),
         "500 has 200 outcomes; at most 24"),
        (lambda: backup_diagram(MRP([[1.0]], [0.0], 0.5), 1), "state 1; expected 0 to 0"),
        (lambda: backup_diagram(MRP([[1.0]], [0.0], 0.5), 0, policy=[0]), "takes no policy"),
        (lambda: q_backup_diagram(world("recycling-robot"), "high", "recharge"), "has no action"),
        (lambda: learning_curves({}), "no curves"),
        (lambda: learning_curves({"a": [1.0, np.nan]}), "run 0 has NaN at point 1"),
        (lambda: learning_curves({"a": [1.0], "b": [1.0, 2.0]}), "'b': 2 points; expected 1"),
        (lambda: learning_curves({"a": [1.0]}, smooth=2), "smooth: 2; expected 1 to 1"),
        (lambda: learning_curves({"a": [1.0]}, x=[1.0, 2.0]), "x: 2 points; expected 1"),
        (lambda: q_table_picture(np.zeros((25, 2))), "at most 24 states"),
        (lambda: q_table_picture(np.zeros((2, 2)), states=["a"]), "states: 1 names; expected 2"),
        (lambda: alpha_vectors([[1.0, 2, 3]], [0]), r"expected \[N, 2\]"),
        (lambda: value_panels({"a": [[1.0]]}, xlabel="", ylabel="", x=[0, 1], y=[0, 1]), "panel 'a'"),
        (lambda: lines({"a": ([1, 2], [1])}, xlabel="", ylabel=""), "expected equal shapes"),
    ],
)  # fmt: skip
def test_what_is_said_of_pictures_that_cannot_be_drawn(draw, said):
    with pytest.raises(UserError, match=said):
        draw()


def test_actions_without_names_are_numbered():
    mdp = MDP(np.full((2, 4, 4), 0.25), np.zeros((4, 2)) + 1, 0.9, grid=[[0, 1], [2, 3]])
    figure = policy_on_grid(mdp, [0, 1, 0, 1])
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "1", "0", "1"]

"""Backup diagrams: how the value of a state or of an action is made of those that may follow.

Open nodes are states and carry V; filled nodes are state-action pairs and carry Q. Going down, the
agent chooses (π) at an open node and the world answers (p, r) at a filled one; going up, values are
summed. The root shows what one backup makes of the values at the leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plaudit.mdp.model import MDP, MRP, policy_rows
from plaudit.mdp.pictures.style import BLUE, INK, MUTED, ORANGE, drawn, said
from plaudit.mdp.planning import evaluate, solve
from plaudit.records.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LEAVES = 24
"""More leaves than this cannot be read side by side."""

MARGIN = 1.05
"""Room at the sides, in distances between leaves, for the words beside a node."""


@dataclass
class Node:
    """A state (open) or a state-action pair (filled), the edge that leads to it, what follows."""

    name: str
    value: float
    is_state: bool
    edge: str = ""
    best: bool = False
    children: list[Node] = field(default_factory=list)
    x: float = 0.0

    def leaves(self) -> Iterator[Node]:
        """The lowest nodes, left to right."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


@drawn
def backup_diagram(
    world: MDP | MRP,
    state: int | str,
    *,
    policy: ArrayLike | None = None,
    value: ArrayLike | None = None,
) -> Figure:
    """What V(state) is made of.

    Under a policy: V(s) = Σ_a π(a|s) [R(s, a) + γ Σ_s' p(s'|s, a) V(s')]; without one the best action
    counts: V(s) = max_a [...]; a chain has one layer: V(s) = R(s) + γ Σ_s' p(s'|s) V(s').
    value [S] stands at the leaves; by default the exact one of the policy, of the best policy, or
    of the chain. Errors: over 24 leaves; a state that does not exist.
    """
    tree, rules = _Trees(world, policy, value).of_state(state)
    return _figure(tree, rules)


@drawn
def q_backup_diagram(
    world: MDP,
    state: int | str,
    action: int | str,
    *,
    policy: ArrayLike | None = None,
    value: ArrayLike | None = None,
) -> Figure:
    """What Q(state, action) is made of.

    Q(s, a) = R(s, a) + γ Σ_s' p(s'|s, a) Σ_a' π(a'|s') Q(s', a'), with max_a' where no policy is given.
    The Q at the leaves are one backup of value [S], which defaults as in `backup_diagram`.
    """
    tree, rules = _Trees(world, policy, value).of_pair(state, action)
    return _figure(tree, rules)


class _Trees:
    def __init__(self, world: MDP | MRP, policy: ArrayLike | None, value: ArrayLike | None) -> None:
        if isinstance(world, MRP):
            if policy is not None:
                raise UserError("a Markov reward process takes no policy")
            found = evaluate(world) if value is None else None
        elif policy is None:
            found = solve(world) if value is None else None
        else:
            found = evaluate(world, policy) if value is None else None
        self.world = world
        self.value = np.asarray(value if found is None else found.value, dtype=np.float64)
        if self.value.shape != (world.num_states,):
            raise UserError(f"value: shape {self.value.shape}; expected [{world.num_states}]")
        self.policy: NDArray[np.float64] | None = None
        if isinstance(world, MDP) and policy is not None:
            self.policy = policy_rows(world, policy)

    def of_state(self, state: int | str) -> tuple[Node, list[str]]:
        s = self._number(state)
        if isinstance(self.world, MRP):
            return self._chain(s), [
                r"$V(s) = R(s) + \gamma\,\sum_{s'} p(s'|s)\,V(s')$",
                r"$V(s')$",
            ]
        rules = [self._choice("s", "a"), _ANSWER, r"$V(s')$"]
        return self._state(self.world, s, depth=2), rules

    def of_pair(self, state: int | str, action: int | str) -> tuple[Node, list[str]]:
        if isinstance(self.world, MRP):
            raise UserError("q_backup_diagram: a Markov reward process has no actions")
        s, a = self._number(state), self.world.action(action)
        if not self.world.available[s, a]:
            raise UserError(f"state {s} has no action {a}")
        rules = [_ANSWER, self._choice("s'", "a'"), r"$Q(s',a')$"]
        root = self._pair(self.world, s, a, depth=2)
        root.name = f"{self._name(s)}, {root.name}"
        return root, rules

    def _choice(self, s: str, a: str) -> str:
        if self.policy is None:
            return rf"$V({s}) = \max_{{{a}}}\,Q({s},{a})$"
        return rf"$V({s}) = \sum_{{{a}}} \pi({a}|{s})\,Q({s},{a})$"

    def _number(self, state: int | str) -> int:
        if isinstance(self.world, MDP):
            return self.world.state(state)
        names = self.world.states or ()
        if isinstance(state, str):
            if state not in names:
                raise UserError(f"no state named {state!r}; there are {self.world.num_states}")
            return names.index(state)
        if not 0 <= state < self.world.num_states:
            raise UserError(f"state {state}; expected 0 to {self.world.num_states - 1}")
        return state

    def _name(self, s: int) -> str:
        return self.world.states[s] if self.world.states else str(s)

    def _chain(self, s: int) -> Node:
        world = self.world
        part = slice(world.transition.indptr[s], world.transition.indptr[s + 1])
        following = list(
            zip(world.transition.indices[part], world.transition.data[part], strict=True)
        )
        total = world.reward[s] + world.gamma * sum(p * self.value[t] for t, p in following)
        paid = f", R {_short(world.reward[s])}" if world.reward[s] else ""
        root = Node(self._name(s) + paid, float(total), is_state=True)
        for target, p in following:
            child = Node(self._name(target), float(self.value[target]), is_state=True)
            child.edge = f"p {_short(p)}"
            root.children.append(child)
        return root

    def _state(self, world: MDP, s: int, depth: int) -> Node:
        """An open node; below it, while `depth` lasts, the actions that the policy may take."""
        if world.terminal[s]:
            return Node(self._name(s), 0.0, is_state=True)
        if depth == 0:
            return Node(self._name(s), float(self.value[s]), is_state=True)
        taken = world.available[s] if self.policy is None else self.policy[s] > 0
        pairs = [self._pair(world, s, int(a), depth - 1) for a in np.flatnonzero(taken)]
        if self.policy is None:
            best = max(pairs, key=lambda pair: pair.value)
            best.best = True
            return Node(self._name(s), best.value, is_state=True, children=pairs)
        weights = self.policy[s][taken]
        for pair, weight in zip(pairs, weights, strict=True):
            pair.edge = f"π {_short(weight)}"
        total = sum(w * pair.value for w, pair in zip(weights, pairs, strict=True))
        return Node(self._name(s), float(total), is_state=True, children=pairs)

    def _pair(self, world: MDP, s: int, a: int, depth: int) -> Node:
        """A filled node; below it, while `depth` lasts, the states to which the world may answer."""
        row = s * world.num_actions + a
        part = slice(world.transition.indptr[row], world.transition.indptr[row + 1])
        targets, p = world.transition.indices[part], world.transition.data[part]
        each = world.reward_next[part] if world.reward_next is not None else None
        backed_up = world.reward[s, a] + world.gamma * p @ self.value[targets]
        name = world.actions[a] if world.actions else str(a)
        node = Node(name, float(backed_up), is_state=False)
        if depth == 0:
            return node
        for k, target in enumerate(targets):
            child = self._state(world, int(target), depth - 1)
            paid = world.reward[s, a] if each is None else each[k]
            child.edge = f"p {_short(p[k])}" + (f"\nr {_short(paid)}" if paid else "")
            node.children.append(child)
        if depth > 0 and node.children and node.children[0].children:
            below = sum(q * child.value for q, child in zip(p, node.children, strict=True))
            node.value = float(world.reward[s, a] + world.gamma * below)
        return node


_ANSWER = r"$Q(s,a) = R(s,a) + \gamma\,\sum_{s'} p(s'|s,a)\,V(s')$"


def _short(number: float) -> str:
    if abs(number - 1 / 3) < 1e-12:
        return "1/3"
    text = f"{number:.3f}".rstrip("0").rstrip(".")
    return ("0" if text == "-0" else text).replace("-", "−")


def _figure(root: Node, rules: list[str]) -> Figure:
    from matplotlib.figure import Figure

    count = sum(1 for _ in root.leaves())
    if count > MOST_LEAVES:
        raise UserError(
            f"backup_diagram: {root.name} has {count} outcomes; at most {MOST_LEAVES} can be read"
        )
    _place(root)
    depth = len(rules) - 1
    side = max(MARGIN, (4.2 - (count - 1)) / 2)  # the formulas need 4.2
    left, right = side, count - 1 + side
    figure = Figure(figsize=(0.92 * (left + right), 1.45 * depth + 0.95 + 0.3 * depth))
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-left, right), ylim=(-depth - 0.5, 0.2 + 0.27 * depth))
    axes.set_axis_off()
    _draw(axes, root, 0)
    figure.text(
        0.1 / figure.get_figwidth(),
        0.985,
        "\n".join(rules[:-1]),
        va="top",
        color=MUTED,
        fontsize=8.5,
        linespacing=2.0,
    )
    return figure


def _place(root: Node) -> None:
    for i, leaf in enumerate(root.leaves()):
        leaf.x = float(i)

    def centre(node: Node) -> float:
        if node.children:
            places = [centre(child) for child in node.children]
            node.x = (places[0] + places[-1]) / 2
        return node.x

    centre(root)


def _draw(axes: Axes, node: Node, level: int, above: Node | None = None) -> None:
    for child in node.children:
        colour, width = (ORANGE, 1.8) if child.best else (MUTED, 1.0)
        axes.plot([node.x, child.x], [-level, -level - 1], color=colour, lw=width, zorder=1)
        _write_edge(axes, node, child, level)
        _draw(axes, child, level + 1, node)
    face = "white" if node.is_state else INK
    axes.scatter([node.x], [-level], s=120, facecolor=face, edgecolor=INK, linewidth=1.4, zorder=3)
    colour = BLUE if node.is_state else INK
    text = f"{node.name}\n{'V' if node.is_state else 'Q'} = {said(node.value, 3)}"
    if not node.children:
        offset, across, up = (0, -9), "center", "top"
    elif above is None:
        offset, across, up = (9, 2), "left", "bottom"
    elif node.x < above.x:  # the edge comes from the right
        offset, across, up = (-9, 0), "right", "center"
    else:
        offset, across, up = (9, 0), "left", "center"
    axes.annotate(
        text,
        (node.x, -level),
        xytext=offset,
        textcoords="offset points",
        ha=across,
        va=up,
        fontsize=7.5,
        color=colour,
        zorder=4,
    )


def _write_edge(axes: Axes, node: Node, child: Node, level: int) -> None:
    if child.edge:
        at = 0.55
        axes.text(
            node.x + at * (child.x - node.x),
            -level - at,
            child.edge,
            ha="center",
            va="center",
            fontsize=7.5,
            color=MUTED,
            zorder=2,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
        )

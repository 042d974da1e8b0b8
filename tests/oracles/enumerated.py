"""Exact expectations on trees of tokens, where they come to rest, and what they are least at.

Everything is enumerated in float64: all answers, all groups of answers, all pairs. A tree is read
through its list of answers and its numbering of nodes; probabilities are taken from the logits here,
token by token.

    group_gradient(...)      expected gradient of a critic-free method
    fixed_point(field, z)    where a vector field is 0
    minimiser(loss, ...)     the policy at which an enumerated loss is least
    tempted, larger_beta, grpo_limit, max_rl_limit, ipo_optimum, kto_limit      closed forms
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from oracles.pair_formulas import FORMULAS, Side

Field = Callable[[Tensor], Tensor]
"""From logits [N, V] to the direction that a method moves them in, on average."""


def token_logps(tree, logits: Tensor) -> list[list[Tensor]]:
    """log π of the tokens of every answer of every prompt."""
    out = []
    for p, listed in enumerate(tree.answers):
        rows = []
        for answer in listed:
            each = []
            for t, token in enumerate(answer):
                begun = [a for a in listed if a[:t] == answer[:t] and len(a) > t]
                ways = sorted({a[t] for a in begun})
                node = logits[tree.nodes[p, answer[:t]]]
                each.append(node[token] - torch.logsumexp(node[ways], 0))
            rows.append(torch.stack(each))
        out.append(rows)
    return out


def answer_logps(tree, logits: Tensor) -> list[Tensor]:
    """log π of every answer of every prompt."""
    return [torch.stack([row.sum() for row in rows]) for rows in token_logps(tree, logits)]


def slope(tree, objective: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    """Gradient of a differentiable number of the logits."""
    z = logits.detach().clone().requires_grad_(True)
    [found] = torch.autograd.grad(objective(z), z)
    return found


def expected_reward(tree, logits: Tensor, reward: Sequence[Tensor]) -> Tensor:
    """Σ over prompts of E_π[r]."""
    logs = answer_logps(tree, logits)
    return torch.stack([(x.exp() * r).sum() for x, r in zip(logs, reward, strict=True)]).sum()


def divergence(tree, logits: Tensor, ref: Tensor) -> Tensor:
    """Σ over prompts of KL(π‖π_ref) of whole answers."""
    pairs = zip(answer_logps(tree, logits), answer_logps(tree, ref), strict=True)
    return torch.stack([(x.exp() * (x - y)).sum() for x, y in pairs]).sum()


# --- groups of answers

KL_SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "k1": lambda x, ref: torch.ones_like(x),
    "k2": lambda x, ref: x - ref,
    "k3": lambda x, ref: 1 - torch.exp(ref - x),
    # ∇(ρ k3) at ρ = 1: k3 ∇log π + ∇k3
    "k3 ratio": lambda x, ref: (torch.exp(ref - x) - 1 - (ref - x)) + 1 - torch.exp(ref - x),
}
"""∂/∂log π of each estimate of a drawn token's KL, as a loss."""


def group_gradient(
    tree,
    logits: Tensor,
    reward: Sequence[Tensor],
    size: int,
    advantage: Callable[[np.ndarray], np.ndarray],
    weight: Callable[[np.ndarray], np.ndarray],
    *,
    beta: float = 0.0,
    ref: Tensor | None = None,
    kl: str = "none",
) -> Tensor:
    """Expected ascent direction [N, V] over every group of `size` answers, summed over prompts.

    `advantage` takes rewards [M, G] of M groups and `weight` their lengths; both give a number for
    each answer [M, G], the second what each of its tokens counts for, denominators included. `kl`
    says where β times the divergence goes: "reward", off each answer's reward, or a key of
    `KL_SLOPES`, into the loss of each token.
    """
    z = logits.detach().clone().requires_grad_(True)
    total = torch.zeros((), dtype=torch.float64)
    beside = token_logps(tree, logits if ref is None else ref)
    for rows, rows_ref, r in zip(token_logps(tree, z), beside, reward, strict=True):
        logp = torch.stack([row.sum() for row in rows]).detach()
        worth = r.double().clone()
        if kl == "reward":
            worth -= beta * (logp - torch.stack([row.sum() for row in rows_ref]))
        groups = _groups(len(rows), size)
        chance = logp.exp().numpy()[groups].prod(1)
        length = np.array([len(row) for row in rows])[groups]
        counts = chance[:, None] * weight(length)
        pull = np.bincount(
            groups.ravel(), (counts * advantage(worth.numpy()[groups])).ravel(), len(rows)
        )
        brake = np.bincount(groups.ravel(), counts.ravel(), len(rows))
        for a, (row, row_ref) in enumerate(zip(rows, rows_ref, strict=True)):
            total = total + pull[a] * row.sum()
            if kl in KL_SLOPES:
                force = KL_SLOPES[kl](row.detach(), row_ref.detach())
                total = total - beta * brake[a] * (force * row).sum()
    [found] = torch.autograd.grad(total, z)
    return found


@functools.lru_cache
def _groups(num: int, size: int) -> np.ndarray:
    """Every group of `size` of so many answers, in order [M, G]."""
    return np.array(list(itertools.product(range(num), repeat=size)))


def vectorised(one_group: Callable[..., Sequence[Sequence[float]]], **keys: float):
    """An advantage of `group_formulas`, each group a batch of its own, for arrays [M, G]; the last
    few are remembered, as rewards that no policy changes come again."""

    @functools.lru_cache(maxsize=8)
    def known(reward: bytes, size: int) -> np.ndarray:
        groups = np.frombuffer(reward).reshape(-1, size).tolist()
        return np.array([one_group([group], **keys)[0] for group in groups])

    return lambda reward: known(reward.tobytes(), reward.shape[1])


def of_answer(length: np.ndarray) -> np.ndarray:
    """GRPO's weight of a token: 1/(G·|o|)."""
    return 1 / (length.shape[1] * length)


def of_tokens(length: np.ndarray) -> np.ndarray:
    """DAPO's: one over the tokens of the group."""
    return np.broadcast_to(1 / length.sum(1, keepdims=True), length.shape)


def of_constant(length: np.ndarray) -> np.ndarray:
    """Dr.GRPO's with a constant of 1, and RLOO's: one over the answers."""
    return np.full(length.shape, 1 / length.shape[1])


# --- points of rest


def fixed_point(
    field: Field, start: Tensor, *, rate: float = 1.0, most: int = 20_000, exact: float = 1e-10
) -> Tensor:
    """Logits at which the field is 0: the flow along it from `start`, then Newton's method.

    The flow decides which zero, Newton (Jacobian by central differences, least squares where
    logits are free) its digits. Raises ValueError where it does not settle.
    """
    z = start.double().clone()
    for _ in range(most):
        force = field(z)
        if float(force.norm()) < 1e-4:
            break
        z = z + rate * force
    for _ in range(60):
        force = field(z).flatten()
        if float(force.norm()) < exact:
            return z
        columns = []
        for i in range(z.numel()):
            step = torch.zeros(z.numel(), dtype=torch.float64)
            step[i] = 1e-5
            step = step.view(z.shape)
            columns.append((field(z + step) - field(z - step)).flatten() / 2e-5)
        newton = np.linalg.lstsq(torch.stack(columns, 1).numpy(), -force.numpy(), rcond=1e-7)[0]
        move, share = torch.from_numpy(newton).view(z.shape), 1.0
        while share > 1e-6 and float(field(z + share * move).norm()) >= float(force.norm()):
            share /= 2
        z = z + share * move
    raise ValueError(f"no point of rest: the field is still {float(field(z).norm()):.2g} long")


@dataclass(frozen=True)
class World:
    """All answers to one prompt: log π and log π_ref, lengths, and P(row preferred to column)."""

    logp: Tensor
    ref: Tensor
    length: Tensor
    prefer: Tensor

    @property
    def ratio(self) -> Tensor:
        """log π/π_ref."""
        return self.logp - self.ref

    def sides(self, a: Sequence[int], b: Sequence[int]) -> tuple[Side, Side]:
        """Pairs of answers by number."""
        one, two = (Side(self.logp[[*i]], self.ref[[*i]], self.length[[*i]]) for i in (a, b))
        return one, two


def bradley_terry(reward: Tensor, *, flipped: float = 0.0) -> Tensor:
    """P(row preferred to column) [A, A], a share of the labels being flipped."""
    right = 1 / (1 + torch.exp(reward[None, :] - reward[:, None]))
    return (1 - flipped) * right + flipped * (1 - right)


def pairs_loss(name: str, **keys: float) -> Callable[[World], Tensor]:
    """Mean over all pairs of different answers of p·ℓ(a, b) + (1 − p)·ℓ(b, a)."""
    function, reads = FORMULAS[name]
    given = {key: keys[key] for key in reads}

    def loss(world: World) -> Tensor:
        pairs = list(itertools.combinations(range(len(world.logp)), 2))
        one, two = world.sides([a for a, _ in pairs], [b for _, b in pairs])
        share = world.prefer[[a for a, _ in pairs], [b for _, b in pairs]]
        return (
            share * function(one, two, **given) + (1 - share) * function(two, one, **given)
        ).mean()

    return loss


def minimiser(
    loss: Callable[[World], Tensor],
    ref: Tensor,
    length: Tensor,
    prefer: Tensor,
    *,
    exact: float = 1e-10,
) -> Tensor:
    """The distribution over a prompt's answers [A] at which the loss is least, from π_ref.

    A logit for each answer is free, whatever tree they hang on: BFGS with autograd's gradient, then
    Newton. Raises ValueError where the gradient is not 0 in the end.
    """

    def value(z: Tensor) -> Tensor:
        return loss(World(z - torch.logsumexp(z, 0), ref, length, prefer))

    def both(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = torch.from_numpy(x.copy()).requires_grad_(True)
        found = value(z)
        [grad] = torch.autograd.grad(found, z)
        return float(found.detach()), grad.numpy()

    x = scipy.optimize.minimize(both, ref.numpy(), jac=True, method="BFGS").x
    for _ in range(20):
        grad = both(x)[1]
        if float(np.linalg.norm(grad)) < exact:
            return torch.from_numpy(x).softmax(0)
        curve = torch.autograd.functional.hessian(value, torch.from_numpy(x)).numpy()
        x = x - np.linalg.lstsq(curve, grad, rcond=1e-10)[0]
    raise ValueError(f"no minimum: the gradient is still {np.linalg.norm(both(x)[1]):.2g} long")


def hinge_minimiser(ref: Tensor, prefer: Tensor, *, beta: float) -> Tensor:
    """Of the hinge loss, which has corners: a linear programme in the log-ratios, which are free but
    for a constant. Variables: u [A] with u_0 = 0, then a cost of each ordered pair."""
    num = len(ref)
    ordered = list(itertools.permutations(range(num), 2))
    price = np.concatenate([np.zeros(num), [float(prefer[a, b]) for a, b in ordered]])
    rows = np.zeros((len(ordered), num + len(ordered)))
    for i, (a, b) in enumerate(ordered):  # cost ≥ 1 − β(u_a − u_b)
        rows[i, a], rows[i, b], rows[i, num + i] = -beta, beta, -1
    bounds = [(0, 0), *[(None, None)] * (num - 1), *[(0, None)] * len(ordered)]
    found = scipy.optimize.linprog(price, rows, -np.ones(len(ordered)), bounds=bounds)
    return (ref + torch.from_numpy(found.x[:num])).softmax(0)


# --- closed forms, over one prompt's answers


def tempted(ref: Tensor, worth: Tensor, beta: float) -> Tensor:
    """π_ref exp(worth/β)/Z, the optimum of E[worth] − β KL(π‖π_ref)."""
    weight = np.array([float(x) + float(w) / beta for x, w in zip(ref, worth, strict=True)])
    weight = np.exp(weight - weight.max())
    return torch.from_numpy(weight / weight.sum())


def larger_beta(beta: float, size: int) -> float:
    """β_eff of Dr.GRPO with the KL in the loss: the mean holds the answer's own reward, which takes
    1/G of the reward's gradient and nothing of the KL's."""
    return beta * size / (size - 1)


def grpo_limit(ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    """GRPO with its spread and the KL in the loss, one token, large groups: π_ref exp(r/(β σ_π)),
    σ_π the spread of r under that π, the largest there is.

    Raises ValueError where there is none, as for small β: the nearer the policy comes to the best
    answer, the less spread there is and the harder it is pulled there.
    """

    def gap(spread: float) -> float:
        policy = tempted(ref, reward, beta * spread)
        mean = (policy * reward).sum()
        return float(((policy * (reward - mean) ** 2).sum()).sqrt()) - spread

    spreads = np.geomspace(float(reward.max() - reward.min()), 1e-4, 2000)
    for high, low in itertools.pairwise(spreads):
        if gap(low) > 0:
            return tempted(ref, reward, beta * scipy.optimize.brentq(gap, low, high, xtol=1e-14))
    raise ValueError(f"with beta {beta} all mass goes to the best answer")


def max_rl_limit(ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    """MaxRL with the KL in the loss, one token, large groups: π_ref exp(r/(β μ_π))."""

    def gap(mean: float) -> float:
        return float((tempted(ref, reward, beta * mean) * reward).sum()) - mean

    top = float(reward.max())
    return tempted(ref, reward, beta * scipy.optimize.brentq(gap, 1e-2 * top, top, xtol=1e-14))


def ipo_optimum(ref: Tensor, prefer: Tensor, tau: float) -> Tensor:
    """π_ref exp(E_y'[p(y ≻ y')]/τ)/Z, with y' over all answers alike (2310.12036, section 5)."""
    return tempted(ref, prefer.mean(1), tau)


def kto_limit(ref: Tensor, share: Tensor, quality: Tensor, beta: float) -> Tensor:
    """KTO with z = 0: π ∝ μ (2q − 1) σ′(β log(π/π_ref)) where that is above 0, and 0 elsewhere.

    μ is how often an answer is in the data, q how often it is called good there. The mean loss is
    Σ μ (q + (1 − 2q) σ(u)), least on the simplex where ∂/∂π is one number for all that is left;
    σ′ is ¼ for small β, so π_ref hardly matters.
    """
    policy = torch.where(quality > 0.5, share * (2 * quality - 1), 0.0)
    policy = policy / policy.sum()
    for _ in range(1000):
        odds = (policy.log() - ref).mul(beta).exp()
        slope = odds / (1 + odds) ** 2
        wanted = torch.where(quality > 0.5, share * (2 * quality - 1) * slope, 0.0)
        policy = (policy + wanted / wanted.sum()) / 2
    return policy

"""The trees that algorithms are tested on, against sums over lists by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from oracles import distribution, tabular
from plaudit.ops import aggregate, kl_exact
from plaudit.records.sampling import Sampling
from tree_world import (
    BANDIT,
    LOPSIDED,
    SQUARE,
    TWO_PROMPTS,
    Tree,
    TreeActor,
    TreeCritic,
    TreeJudge,
    TreeReference,
    TreeReward,
    some_logits,
    some_rewards,
)

TREES = {"bandit": BANDIT, "square": SQUARE, "two prompts": TWO_PROMPTS, "lopsided": LOPSIDED}


def by_hand(tree: Tree, logits: torch.Tensor, p: int, answer: tuple[int, ...]) -> list[float]:
    """π of each token of an answer, from the list of all answers and plain floats."""
    found = []
    for t, token in enumerate(answer):
        ways = sorted({a[t] for a in tree.answers[p] if a[:t] == answer[:t] and len(a) > t})
        node = logits[tree.nodes[p, answer[:t]]]
        share = distribution.probabilities([float(node[v]) for v in ways])
        found.append(share[ways.index(token)])
    return found


@pytest.mark.parametrize("name", TREES)
def test_probabilities_of_answers_are_products_and_sum_to_1(name: str) -> None:
    tree = TREES[name]
    logits, other = some_logits(tree, 3), some_logits(tree, 4)
    kl = tree.kl(logits, other)
    for p, logs in enumerate(tree.log_answers(logits)):
        wanted = [math.prod(by_hand(tree, logits, p, a)) for a in tree.answers[p]]
        assert logs.exp().tolist() == pytest.approx(wanted, rel=1e-12)
        assert sum(wanted) == pytest.approx(1, rel=1e-12)
        beside = [math.prod(by_hand(tree, other, p, a)) for a in tree.answers[p]]
        distance = sum(x * math.log(x / y) for x, y in zip(wanted, beside, strict=True))
        assert float(kl[p]) == pytest.approx(distance, rel=1e-10)


def test_the_optimum_and_distances_by_hand() -> None:
    """Two answers at ½ each, rewards 0 and ln 3 with β = 1: ¼ and ¾, a distance of ¼."""
    tree = Tree([[(0,), (1, 1)]], 2)
    flat = torch.zeros(2, 2, dtype=torch.float64)
    reward = [torch.tensor([0.0, math.log(3)], dtype=torch.float64)]
    [best] = tree.optimum(flat, reward, 1.0)
    assert best.tolist() == pytest.approx([0.25, 0.75], rel=1e-12)
    assert tree.distance(flat, [best]) == pytest.approx(0.25, rel=1e-12)
    assert tree.distance(tree.logits_of([best]), [best]) < 1e-15


@pytest.mark.parametrize("name", TREES)
def test_the_optimum_has_the_largest_reward_less_distance(name: str) -> None:
    tree = TREES[name]
    ref, reward = some_logits(tree, 1), some_rewards(tree, 2)
    best = tree.logits_of(tree.optimum(ref, reward, 0.5)).requires_grad_(True)
    means = [(x.exp() * r).sum() for x, r in zip(tree.log_answers(best), reward, strict=True)]
    (torch.stack(means) - 0.5 * tree.kl(best, ref)).sum().backward()
    assert float(best.grad.abs().max()) < 1e-12


@pytest.mark.parametrize("name", TREES)
def test_every_answer_is_in_the_batch_once_and_is_known_again(name: str) -> None:
    tree = TREES[name]
    batch = tree.batch(logits=some_logits(tree, 0))
    assert tree.rows(batch) == tree.every
    assert tree.numbers(batch).tolist() == list(range(len(tree.every)))
    assert batch.chosen.sum(1).tolist() == [len(a) for _, a in tree.every]
    reward = some_rewards(tree, 1)
    given = TreeReward(tree, reward)(batch)
    last = torch.tensor([len(a) - 1 for _, a in tree.every])
    wanted = torch.zeros_like(given)
    wanted[torch.arange(len(last)), last] = torch.cat(reward)
    assert torch.equal(given, wanted)
    scores = TreeJudge(tree, {"a": reward, "b": [-r for r in reward]}, [1.0, 0.5])(batch)
    assert torch.equal(scores["a"], torch.cat(reward))
    assert torch.equal(scores["b"], -torch.cat(reward))


def test_draws_follow_the_policy_and_the_seed() -> None:
    tree, logits = TWO_PROMPTS, some_logits(TWO_PROMPTS, 5)
    actor = TreeActor(tree, logits)
    how = {"num_answers": 20_000, "sampling": Sampling(max_new_tokens=3, temperature=0.7)}
    batch = actor.generate([tree.prompts[1], tree.prompts[0]], seed=3, **how)
    again = actor.generate([tree.prompts[1], tree.prompts[0]], seed=3, **how)
    assert torch.equal(batch.token, again.token)
    assert batch.group.tolist() == [0] * 20_000 + [1] * 20_000
    assert torch.equal(batch.logp, actor.logprobs(batch))
    share = torch.bincount(tree.numbers(batch)) / 20_000
    wanted = torch.cat(tree.log_answers(logits / 0.7)).exp()
    torch.testing.assert_close(share.double(), wanted, rtol=0, atol=0.012)  # 3.4 s.d. at most
    assert TreeActor(tree, logits).version == int(batch.version[0]) == 0


def test_what_a_tree_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="begins another"):
        Tree([[(0,), (0, 1)]], 2)
    with pytest.raises(ValueError, match="begins another"):
        Tree([[(0,), (0,)]], 2)
    actor = TreeActor(SQUARE, some_logits(SQUARE, 0))
    for sampling in ({"temperature": 0.0}, {"top_k": 2}, {"top_p": 0.9}):
        with pytest.raises(ValueError, match="drawn from whole"):
            actor.generate(
                SQUARE.prompts,
                num_answers=1,
                sampling=Sampling(max_new_tokens=2, **sampling),
                seed=0,
            )
    off = replace(TWO_PROMPTS.batch([(0, (0,))]), token=torch.tensor([[0, 1, 0]]))
    off = replace(off, there=torch.ones_like(off.there))
    with pytest.raises(ValueError, match="leaves the tree"):
        TWO_PROMPTS.places(off)


# --- roles


@dataclass(frozen=True)
class Everything:
    """Σ w (x² + logp·entropy + KL(π‖flat)) over the chosen tokens: reads all statistics."""

    needs: ClassVar[tuple[str, ...]] = ("logp", "entropy", "distribution")
    together: bool = False

    def __call__(self, part):
        def kl(logits, weight):
            return weight * kl_exact(logits, torch.where(logits.isneginf(), logits, 0.0))

        each = part["weight"] * part["logp"] * part["entropy"]
        each = each + part["distribution"].each(kl, part["weight"])
        loss = aggregate(each, part.chosen, part.denominator)
        return loss, {"loss": loss, "rows": torch.tensor(float(len(part.chosen)))}


def taught(micro=None, *, together=False, logits=None):
    tree = TWO_PROMPTS
    logits = some_logits(tree, 7) if logits is None else logits
    actor = TreeActor(tree, logits, adam=False, micro=micro)
    batch = tree.batch()
    weight = torch.linspace(-1, 2, batch.chosen.numel(), dtype=torch.float64)
    told = actor.gradient(
        batch,
        Everything(together),
        fields={"weight": weight.view(batch.chosen.shape)},
        denominator=7,
    )
    return told, actor.logits.grad


def test_gradients_of_all_statistics_by_differences() -> None:
    def value(z):
        return taught(logits=torch.from_numpy(z))[0]["loss"]

    wanted = tabular.gradient(value, some_logits(TWO_PROMPTS, 7).numpy())
    torch.testing.assert_close(taught()[1], torch.from_numpy(wanted), rtol=0, atol=1e-9)


@pytest.mark.parametrize("micro", [1, 3, (1, 4, 2), 100])
@pytest.mark.parametrize("together", [False, True])
def test_parts_add_up(micro, together: bool) -> None:
    told, gradient = taught(micro, together=together)
    whole, wanted = taught()
    assert told == pytest.approx(whole, rel=1e-12)
    torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-14)


def test_parts_hold_the_rows_that_are_asked_for() -> None:
    sizes: list[int] = []

    @dataclass(frozen=True)
    class Counted(Everything):
        def __call__(self, part):
            sizes.append(len(part.chosen))
            return super().__call__(part)

    for together, wanted in ((False, [1, 4, 1, 4, 1]), (True, [6, 5])):
        sizes.clear()
        actor = TreeActor(TWO_PROMPTS, some_logits(TWO_PROMPTS, 7), micro=(1, 4))
        batch = TWO_PROMPTS.batch()
        fields = {"weight": torch.ones(batch.chosen.shape, dtype=torch.float64)}
        actor.gradient(batch, Counted(together), fields=fields, denominator=1)
        assert sizes == wanted


@pytest.mark.parametrize("adam", [False, True])
def test_a_restored_role_goes_on_as_the_other(adam: bool) -> None:
    batch = TWO_PROMPTS.batch()
    fields = {"weight": torch.ones(batch.chosen.shape, dtype=torch.float64)}
    how = {"fields": fields, "denominator": 3.0, "lr": 0.1}
    first = TreeActor(TWO_PROMPTS, some_logits(TWO_PROMPTS, 7), adam=adam)
    before = first.logits.detach().clone()
    told = first.update(batch, Everything(), **how)
    assert told["grad_norm"] == pytest.approx(float(first.logits.grad.norm()))
    moved = before - first.logits.detach()
    wanted = 0.1 * first.logits.grad.sign() if adam else 0.1 * first.logits.grad
    torch.testing.assert_close(moved, wanted, rtol=1e-5, atol=1e-9)
    second = TreeActor(TWO_PROMPTS, torch.zeros_like(before), adam=adam)
    second.restore(first.state())
    for actor in (first, second):
        actor.update(batch, Everything(), **how)
    assert torch.equal(first.logits, second.logits)
    assert first.version == second.version == 2


def test_the_critic_learns_the_mean_of_what_follows() -> None:
    """Least squares on every answer, once each: a node's value is the mean over answers below it."""

    @dataclass(frozen=True)
    class SquaredError:
        needs: ClassVar[tuple[str, ...]] = ("value",)
        together: ClassVar[bool] = False

        def __call__(self, part):
            error = (part["value"] - part["ret"]) ** 2
            return aggregate(error, part.chosen, part.denominator), {}

    tree, reward = TWO_PROMPTS, some_rewards(TWO_PROMPTS, 1)
    batch, critic = tree.batch(), TreeCritic(TWO_PROMPTS, adam=False)
    ret = torch.cat(reward)[:, None].expand(batch.chosen.shape)
    for _ in range(400):
        critic.update(batch, SquaredError(), fields={"ret": ret}, denominator=1, lr=0.08)
    values = critic.values(batch)
    assert bool((values[~batch.chosen] == 0).all())
    for p, answer in tree.every:
        for t in range(len(answer)):
            below = [r for (q, a), r in zip(tree.every, torch.cat(reward).tolist(), strict=True)
                     if q == p and a[:t] == answer[:t]]  # fmt: skip
            found = float(critic.value.detach()[tree.nodes[p, answer[:t]]])
            assert found == pytest.approx(sum(below) / len(below), abs=1e-6)


def test_a_reference_is_a_policy_that_stays() -> None:
    logits = some_logits(LOPSIDED, 2)
    reference, batch = TreeReference(LOPSIDED, logits), LOPSIDED.batch()
    kept = reference.logprobs(batch)
    logits += 1
    assert torch.equal(reference.logprobs(batch), kept)
    assert bool((kept[~batch.chosen] == 0).all())

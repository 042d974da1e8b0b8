"""Losses of pairs and labels on trees, against formulas and probabilities of their own (`oracles`).

What is compared is what a loop hands to a role: the loss as a value, its fields and denominator, and
the gradient that it leaves on the policy's logits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from oracles import pair_formulas as pf
from oracles.enumerated import answer_logps, slope
from plaudit.lm.dpo import DPOConfig, held_out_pairs
from plaudit.lm.kto import KTOConfig, held_out_labels, label_loss, mismatched
from plaudit.lm.loop import RunningMoments
from plaudit.lm.pairs import pair_loss
from plaudit.records.pairs import Pairs
from tree_world import (
    BANDIT,
    LOPSIDED,
    TWO_PROMPTS,
    Tree,
    TreeActor,
    TreeReference,
    level_of,
    some_logits,
    some_rewards,
)

TREES = {"bandit": BANDIT, "two prompts": TWO_PROMPTS, "lopsided": LOPSIDED}
KEYS = {"beta": 0.4, "eps": 0.1, "gamma": 0.3, "alpha": 0.25, "tau": 0.5}
WITHIN = {torch.float64: 1e-10, torch.float32: 1e-6}
SAME_PROMPTS = Tree([[(0,), (1, 0), (1, 2), (2, 1, 1)]] * 3, 3)
"""Answers that may stand behind another prompt."""


def config_of(name: str, **more) -> DPOConfig:
    keys = {"beta": KEYS["beta"], "gamma": KEYS["gamma"], "tau": KEYS["tau"]}
    keys |= {"smoothing": KEYS["eps"], "alpha": KEYS["alpha"]}
    return DPOConfig(loss=name, **{**keys, **more})  # type: ignore[arg-type]


def every_pair(tree: Tree) -> Pairs:
    """All pairs of a prompt's answers: won, lost, tied or shared, with margins."""
    a, b, share, first = [], [], [], 0
    for count in tree.counts:
        for i, j in itertools.combinations(range(count), 2):
            a.append(first + i)
            b.append(first + j)
            share.append((1.0, 0.0, 0.5, 0.8)[len(a) % 4])
        first += count
    return Pairs(tuple(a), tuple(b), tuple(share))


def sides(tree: Tree, logits: Tensor, ref: Tensor, pairs: Pairs) -> tuple[pf.Side, pf.Side]:
    logp, logp_ref = torch.cat(answer_logps(tree, logits)), torch.cat(answer_logps(tree, ref))
    length = torch.tensor([float(len(a)) for _, a in tree.every], dtype=torch.float64)
    one, two = (
        pf.Side(logp[[*rows]], logp_ref[[*rows]], length[[*rows]]) for rows in (pairs.a, pairs.b)
    )
    return one, two


def by_formula(
    name: str, tree: Tree, ref: Tensor, pairs: Pairs, **keys: float
) -> Callable[[Tensor], Tensor]:
    share = torch.tensor(pairs.share, dtype=torch.float64)

    def loss(logits: Tensor) -> Tensor:
        one, two = sides(tree, logits, ref, pairs)
        each = share * pf.formula(name, one, two, **keys)
        return (each + (1 - share) * pf.formula(name, two, one, **keys)).mean()

    return loss


def by_loop(config: DPOConfig, tree: Tree, logits: Tensor, ref: Tensor, pairs: Pairs, **how):
    """The mean loss that a step would log, and the gradient that it would follow."""
    actor, data = TreeActor(tree, logits, adam=False, **how), tree.batch()
    logp_ref = TreeReference(tree, ref).logprobs(data).sum(1)
    loss = pair_loss(
        config.loss, config.coefficients, actor, data, pairs, logp_ref, RunningMoments(),
        nll_coef=config.nll_coef,
    )  # fmt: skip
    fields = {"pairs": pairs, "ref": logp_ref}
    told = actor.gradient(data, loss, fields=fields, denominator=len(pairs))
    return told["loss"] / len(pairs), actor.logits.grad


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    size = max(1.0, float(wanted.abs().max()))
    assert float((found.double() - wanted).abs().max()) <= WITHIN[dtype] * size


def delta_of(tree: Tree, logits: Tensor, ref: Tensor, pairs: Pairs) -> float:
    """δ of BCO: the mean reward of both sides of every pair."""
    one, two = sides(tree, logits, ref, pairs)
    return float(KEYS["beta"] * torch.cat([one.ratio, two.ratio]).mean())


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
@pytest.mark.parametrize("name", sorted(pf.FORMULAS))
@pytest.mark.parametrize("dtype", WITHIN)
def test_losses_and_gradients_of_pairs(tree: Tree, name: str, dtype: torch.dtype) -> None:
    logits, ref = some_logits(tree, 3).to(dtype), some_logits(tree, 0).to(dtype)
    pairs = every_pair(tree)
    delta = delta_of(tree, logits.double(), ref.double(), pairs)
    formula = by_formula(name, tree, ref.double(), pairs, **KEYS, delta=delta)
    loss, gradient = by_loop(config_of(name), tree, logits, ref, pairs)
    close(torch.tensor(loss, dtype=torch.float64), formula(logits.double()).detach(), dtype)
    close(gradient, slope(tree, formula, logits.double()), dtype)


def test_the_table_holds_the_formulas_and_no_other() -> None:
    names = DPOConfig.model_fields["loss"].annotation
    assert set(names.__args__) == set(pf.FORMULAS)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["dpo", "cdpo", "robust", "hinge", "ipo", "exo", "discopop"])
def test_a_margin_shifts_the_lead(name: str) -> None:
    """m of each pair is taken from h, and given to it where b won."""
    tree, beta = TWO_PROMPTS, KEYS["beta"]
    logits, ref, pairs = some_logits(tree, 3), some_logits(tree, 0), every_pair(TWO_PROMPTS)
    margin = torch.linspace(0, 1, len(pairs), dtype=torch.float64)
    pairs = Pairs(pairs.a, pairs.b, pairs.share, tuple(margin.tolist()))
    share = torch.tensor(pairs.share, dtype=torch.float64)

    def formula(z: Tensor) -> Tensor:
        one, two = sides(tree, z, ref, pairs)
        behind = one._replace(logp=one.logp - margin / beta)
        each = share * pf.formula(name, behind, two, **KEYS)
        return (each + (1 - share) * pf.formula(name, two, behind, **KEYS)).mean()

    loss, gradient = by_loop(config_of(name), tree, logits, ref, pairs)
    assert loss == pytest.approx(float(formula(logits)), rel=1e-10)
    close(gradient, slope(tree, formula, logits), torch.float64)


@pytest.mark.parametrize("name", ["dpo", "ipo", "simpo"])
def test_the_likelihood_beside_a_loss_counts_the_chosen_answers_tokens(name: str) -> None:
    tree, weight = TWO_PROMPTS, 0.7
    logits, ref, pairs = some_logits(tree, 3), some_logits(tree, 0), every_pair(TWO_PROMPTS)
    plain = by_formula(name, tree, ref, pairs, **KEYS)
    share = torch.tensor(pairs.share, dtype=torch.float64)

    def formula(z: Tensor) -> Tensor:
        one, two = sides(tree, z, ref, pairs)
        tokens = (share * one.length + (1 - share) * two.length).sum()
        nll = -(share * one.logp + (1 - share) * two.logp).sum() / tokens
        return plain(z) + weight * nll

    _, gradient = by_loop(config_of(name, nll_coef=weight), tree, logits, ref, pairs)
    close(gradient, slope(tree, formula, logits), torch.float64)


def test_the_running_level_is_the_mean_of_all_rewards_so_far() -> None:
    tree, pairs = TWO_PROMPTS, every_pair(TWO_PROMPTS)
    centre, config, data = RunningMoments(), config_of("bco"), TWO_PROMPTS.batch()
    ref = some_logits(tree, 0)
    logp_ref = TreeReference(tree, ref).logprobs(data).sum(1)
    seen = []
    for seed in (3, 4, 5):
        logits = some_logits(tree, seed)
        actor = TreeActor(tree, logits)
        loss = pair_loss("bco", config.coefficients, actor, data, pairs, logp_ref, centre)
        one, two = sides(tree, logits, ref, pairs)
        seen += (KEYS["beta"] * torch.cat([one.ratio, two.ratio])).tolist()
        assert loss.keys.delta == pytest.approx(sum(seen) / len(seen), rel=1e-12)


@pytest.mark.parametrize("name", ["dpo", "orpo", "ipo"])
def test_held_out_figures_are_those_of_the_loss(name: str) -> None:
    tree, pairs = TWO_PROMPTS, every_pair(TWO_PROMPTS)
    logits, ref, data = some_logits(tree, 3), some_logits(tree, 0), TWO_PROMPTS.batch()
    config = config_of(name)
    logp_ref = TreeReference(tree, ref).logprobs(data) if config.has_reference else None
    told = held_out_pairs(config, TreeActor(tree, logits), data, pairs, logp_ref)
    formula = by_formula(name, tree, ref, pairs, **KEYS)
    assert told["eval/loss"] == pytest.approx(float(formula(logits)), rel=1e-10)
    one, two = sides(tree, logits, ref, pairs)
    share = torch.tensor(pairs.share)
    won = [torch.where(share >= 0.5, a, b) for a, b in ((one.logp, two.logp), (two.logp, one.logp))]
    assert told["eval/logp/chosen"] == pytest.approx(float(won[0].mean()), rel=1e-10)
    assert told["eval/logp/rejected"] == pytest.approx(float(won[1].mean()), rel=1e-10)
    if name == "dpo":
        lead = (KEYS["beta"] * (one.ratio - two.ratio) * (2 * share - 1).sign())[share != 0.5]
        assert told["eval/accuracy"] == pytest.approx(float((lead > 0).double().mean()))


# --- labels


def labelled(tree: Tree) -> Tensor:
    return torch.cat([r > r.median() for r in some_rewards(tree, 1)])


def kto_by_formula(
    config: KTOConfig, tree: Tree, ref: Tensor, level: float
) -> Callable[[Tensor], Tensor]:
    function = pf.kto if config.loss == "kto" else pf.bco_labels

    def loss(logits: Tensor) -> Tensor:
        ratio = torch.cat(answer_logps(tree, logits)) - torch.cat(answer_logps(tree, ref))
        return function(
            ratio, labelled(tree), beta=config.beta, level=level,
            good=config.good_weight, bad=config.bad_weight,
        ).mean()  # fmt: skip

    return loss


@pytest.mark.parametrize("name", ["kto", "bco"])
@pytest.mark.parametrize("level", [0.0, 0.3])
@pytest.mark.parametrize("dtype", WITHIN)
def test_losses_and_gradients_of_labels(name: str, level: float, dtype: torch.dtype) -> None:
    tree = TWO_PROMPTS
    config = KTOConfig(loss=name, beta=0.4, good_weight=1.0, bad_weight=1.5)  # type: ignore[arg-type]
    logits, ref = some_logits(tree, 3).to(dtype), some_logits(tree, 0).to(dtype)
    data, actor = tree.batch(), TreeActor(tree, logits, adam=False)
    own = TreeReference(tree, ref).logprobs(data).sum(1)
    fields = {"is_good": labelled(tree), "ref": own}
    told = actor.gradient(data, label_loss(config, level), fields=fields, denominator=len(data))
    formula = kto_by_formula(config, tree, ref.double(), level)
    close(
        torch.tensor(told["loss"] / len(data), dtype=torch.float64),
        formula(logits.double()).detach(),
        dtype,
    )
    close(actor.logits.grad, slope(tree, formula, logits.double()), dtype)


@pytest.mark.parametrize("seeds", [(3, 0), (0, 3), (1, 2)])
def test_the_level_is_of_answers_behind_other_prompts(seeds: tuple[int, int]) -> None:
    """By hand: the answers of prompt p behind prompt p + 1, except that a row goes on to the next
    row that has another prompt, so all four answers of a prompt go behind the following one."""
    tree = SAME_PROMPTS
    logits, ref = (some_logits(tree, seed) for seed in seeds)
    logp, logp_ref = answer_logps(tree, logits), answer_logps(tree, ref)
    ratio = torch.cat([logp[(p + 1) % 3] - logp_ref[(p + 1) % 3] for p in range(3)])
    found = level_of(0.4, TreeActor(tree, logits), TreeReference(tree, ref), tree.batch())
    assert found == pytest.approx(float(pf.kto_level(ratio, beta=0.4)), rel=1e-12)
    one = tree.batch(tree.every[:4])
    assert level_of(0.4, TreeActor(tree, logits), TreeReference(tree, ref), one) == 0.0


def test_held_out_labels_are_figures_of_the_loss() -> None:
    tree = SAME_PROMPTS
    config = KTOConfig(beta=0.4, bad_weight=1.5)
    logits, ref, data = some_logits(tree, 3), some_logits(tree, 0), tree.batch()
    actor, reference = TreeActor(tree, logits), TreeReference(tree, ref)
    other = mismatched(data)
    assert other is not None
    told = held_out_labels(
        config,
        actor,
        data,
        labelled(tree),
        reference.logprobs(data),
        reference.logprobs(other),
    )
    level = level_of(0.4, actor, reference, data)
    wanted = kto_by_formula(config, tree, ref, level)(logits)
    assert told["eval/loss"] == pytest.approx(float(wanted), rel=1e-10)


def test_kto_lifts_what_is_good_and_lowers_what_is_bad() -> None:
    """∂L/∂log π of an answer is −λβσ(1 − σ) where it is good, and λβσ(1 − σ) where it is bad: it
    depends on the answer's own log-ratio and on no other."""
    tree = BANDIT
    config = KTOConfig(beta=0.4, bad_weight=1.5)
    logits, ref, good = some_logits(tree, 3), some_logits(tree, 0), labelled(tree)
    actor, data = TreeActor(tree, logits, adam=False), tree.batch()
    own = TreeReference(tree, ref).logprobs(data).sum(1)
    fields = {"is_good": good, "ref": own}
    actor.gradient(data, label_loss(config, 0.2), fields=fields, denominator=1)
    logp = logits.log_softmax(1)[0]
    s = pf.sigma(0.4 * (logp - own) - 0.2)
    pull = torch.where(good, -1.0, 1.5).double() * 0.4 * s * (1 - s)
    through_softmax = pull - logp.exp() * pull.sum()
    torch.testing.assert_close(actor.logits.grad[0], through_softmax, rtol=0, atol=1e-12)
    assert bool((pull.sign() == torch.where(good, -1.0, 1.0)).all())

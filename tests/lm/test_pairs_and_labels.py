"""DPO's and KTO's loops on trees: what belongs to the whole batch, resuming, what is logged."""

from __future__ import annotations

import itertools

import pytest
import torch

from plaudit.lm.dpo import DPOConfig, dpo, held_out_pairs
from plaudit.lm.kto import KTOConfig, held_out_labels, kto, mismatched
from plaudit.records.errors import UserError
from plaudit.records.events import Checkpoint, Evaluation, Step
from plaudit.records.pairs import Pairs
from plaudit.records.watch import Watch
from tree_world import TWO_PROMPTS, TreeActor, TreeRole, level_of, some_logits, some_rewards

TREE = TWO_PROMPTS
DATA = TREE.batch()
START = some_logits(TREE, 0)
REF = TreeRole(TREE, START).logprobs(DATA)


def some_pairs() -> Pairs:
    """Every pair of answers to each prompt, with soft shares and margins."""
    a, b, share, first = [], [], [], 0
    for listed, r in zip(TREE.answers, some_rewards(TREE, 1), strict=True):
        for i, j in itertools.combinations(range(len(listed)), 2):
            a.append(first + i)
            b.append(first + j)
            share.append(1.0 if r[i] > r[j] + 0.5 else 0.75 if r[i] > r[j] else 0.5)
        first += len(listed)
    return Pairs(tuple(a), tuple(b), tuple(share), tuple(0.1 * k for k in range(len(a))))


PAIRS = some_pairs()


def test_ties_pull_both_ways_and_shares_are_cross_entropy() -> None:
    """At the optimum of one pair with share q the implicit reward says q."""
    some = Pairs((0,), (1,), (0.8,))
    actor = TreeActor(TREE, START)
    config = DPOConfig(beta=0.5, num_epochs=800, lr=0.05)
    for _ in dpo(config, actor=actor, data=DATA, pairs=some, logp_ref=REF, seed=0):
        pass
    moved = (actor.logprobs(DATA) - REF).sum(1)
    assert float(torch.sigmoid(0.5 * (moved[0] - moved[1]))) == pytest.approx(0.8, abs=1e-3)


def test_what_is_logged_at_the_start() -> None:
    config = DPOConfig(batch_size=len(PAIRS))
    events = list(
        dpo(
            config,
            actor=TreeActor(TREE, START),
            data=DATA,
            pairs=PAIRS.at(range(len(PAIRS))),
            logp_ref=REF,
            seed=0,
        )
    )
    first = next(e for e in events if isinstance(e, Step)).metrics
    assert first["margin"] == pytest.approx(0.0, abs=1e-12)
    assert first["logp/chosen_change"] == pytest.approx(0.0, abs=1e-12)
    assert first["logp/chosen"] < 0 > first["logp/rejected"]


def test_a_loss_with_a_reference_needs_one() -> None:
    with pytest.raises(ValueError, match="needs the reference"):
        next(dpo(DPOConfig(), actor=TreeActor(TREE, START), data=DATA, pairs=PAIRS, seed=0))


def test_smoothing_is_asked_for() -> None:
    with pytest.raises(UserError, match="loss exo needs smoothing above 0"):
        DPOConfig(loss="exo")


@pytest.mark.parametrize("loss", ["dpo", "bco"])
def test_dpo_goes_on_as_if_it_had_not_stopped(loss: str) -> None:
    config = DPOConfig(loss=loss, batch_size=4, num_epochs=2, lr=0.05, save_every=1)  # type: ignore[arg-type]

    def run(actor, saved=None):
        watch = Watch(
            lambda: held_out_pairs(config, actor, DATA, PAIRS, REF), every=3, best_by="-eval/loss"
        )
        return dpo(
            config, actor=actor, data=DATA, pairs=PAIRS, logp_ref=REF, seed=0, watch=watch,
            saved=saved,
        )  # fmt: skip

    whole = TreeActor(TREE, START)
    told = [e for e in run(whole) if isinstance(e, Step | Evaluation)]
    first = TreeActor(TREE, START)
    for event in run(first):
        if isinstance(event, Checkpoint) and event.step == 5:
            arrays, facts = event.state()
            saved = ({k: v.clone() for k, v in arrays.items()}, facts)
            break
    second = TreeActor(TREE, torch.zeros_like(START))
    rest = [e for e in run(second, saved) if isinstance(e, Step | Evaluation)]
    assert rest == told[-len(rest) :]
    assert torch.equal(second.logits, whole.logits)


def test_a_run_stops_at_the_figure_that_was_asked_for() -> None:
    actor = TreeActor(TREE, START)
    config = DPOConfig(batch_size=len(PAIRS), num_epochs=200, lr=0.1)
    watch = Watch(
        lambda: held_out_pairs(config, actor, DATA, PAIRS, REF),
        every=1,
        stop_at={"-eval/loss": 0.65},
    )
    events = list(
        dpo(config, actor=actor, data=DATA, pairs=PAIRS, logp_ref=REF, watch=watch, seed=0)
    )
    looks = [e.metrics["eval/loss"] for e in events if isinstance(e, Evaluation)]
    assert looks[-1] <= 0.65 < looks[-2]
    assert events[-1].step < 200
    saves = [e for e in events if isinstance(e, Checkpoint)]
    assert saves[-1].due


# --- labels


GOOD = torch.tensor([True, False, True, True, False, False, True, False, True, False, True])


def test_z_is_of_answers_behind_other_prompts_and_never_negative() -> None:
    other = mismatched(DATA)
    assert other is not None
    assert all(a != b for a, b in zip(other.group.tolist(), DATA.group.tolist(), strict=True))
    assert mismatched(DATA.select([0, 1, 2])) is None
    same = TreeRole(TREE, START)

    class Apart:
        def __init__(self, gap: float) -> None:
            self.gap = gap

        def logprobs(self, batch):
            return self.gap * batch.chosen.double()

    tokens = float(DATA.chosen.sum()) / len(DATA)
    level = level_of(0.5, Apart(0.3), Apart(0.0), DATA)  # type: ignore[arg-type]
    assert level == pytest.approx(0.5 * 0.3 * tokens)
    assert level_of(0.5, Apart(-0.3), Apart(0.0), DATA) == 0.0  # type: ignore[arg-type]
    assert level_of(0.5, same, same, DATA.select([0, 1])) == 0.0  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["kto", "bco"])
def test_good_answers_gain_and_bad_ones_lose(loss: str) -> None:
    class Actor(TreeActor):
        def logprobs(self, batch):
            rows = self.tree.rows(batch)
            if all(a in self.tree.answers[p] for p, a in rows):
                return super().logprobs(batch)
            return torch.zeros(batch.token.shape, dtype=torch.float64)

    actor = Actor(TREE, START)
    config = KTOConfig(loss=loss, num_epochs=60, batch_size=len(DATA), lr=0.05)  # type: ignore[arg-type]
    events = list(
        kto(
            config,
            actor=actor,
            data=DATA,
            is_good=GOOD,
            logp_ref=REF,
            logp_ref_other=torch.zeros_like(REF),
            seed=0,
        )
    )
    moved = (actor.logprobs(DATA) - REF).sum(1)
    assert float(moved[GOOD].mean()) > 0 > float(moved[~GOOD].mean())
    last = [e for e in events if isinstance(e, Step)][-1].metrics
    assert last["margin"] > 0
    figures = held_out_labels(config, actor, DATA, GOOD, REF, torch.zeros_like(REF))
    assert figures["eval/margin"] == pytest.approx(
        0.1 * float(moved[GOOD].mean() - moved[~GOOD].mean())
    )

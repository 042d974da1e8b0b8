"""Fine-tuning against the empirical distribution, hand work, and itself continued."""

from __future__ import annotations

import math

import pytest
import torch

from plaudit.lm.loop import CrossEntropy
from plaudit.lm.sft import SFTConfig, held_out_loss, sft
from plaudit.models.answers import Given, given_answers
from plaudit.records.events import Checkpoint, Done, Evaluation, Step
from plaudit.records.losses import Part
from plaudit.records.watch import Watch
from tabular_roles import TableActor, prompts_of


def examples_of(counts: dict[tuple[int, int], int]):
    """`counts[prompt, token]` examples of each one-token answer."""
    prompts = prompts_of(1 + max(prompt for prompt, _ in counts))
    pairs = [(prompts[p], (t,)) for (p, t), n in counts.items() for _ in range(n)]
    return given_answers(pairs, pad_id=0)


COUNTS = {(0, 1): 6, (0, 2): 2, (1, 0): 3, (1, 3): 3, (1, 4): 2}
WANTED = [[0, 0.75, 0.25, 0, 0], [0.375, 0, 0, 0.375, 0.25]]


def uniform() -> torch.Tensor:
    return torch.zeros(2, 5, dtype=torch.float64)


def run(actor, *, saved=None, **keys):
    config = SFTConfig(**{"num_epochs": 40, "batch_size": 16, "lr": 0.3, **keys})
    return list(sft(config, actor=actor, data=examples_of(COUNTS), seed=1, saved=saved))


def test_the_policy_becomes_the_share_of_each_answer() -> None:
    """Cross-entropy is least where π is the empirical distribution (Gibbs)."""
    actor = TableActor(uniform())
    events = run(actor, num_epochs=300)
    learned = actor.logits.detach().softmax(-1)
    torch.testing.assert_close(learned, torch.tensor(WANTED).double(), rtol=0, atol=0.02)
    last = [event for event in events if isinstance(event, Step)][-1]
    entropy = -sum(p * math.log(p) for row in WANTED for p in row if p) / 2
    assert last.metrics["loss"] == pytest.approx(entropy, abs=0.02)
    assert isinstance(events[-1], Done)


def test_the_first_loss_of_a_uniform_policy_is_the_logarithm_of_its_words() -> None:
    first = next(event for event in run(TableActor(uniform())) if isinstance(event, Step))
    assert first.metrics["loss"] == pytest.approx(math.log(5), rel=1e-12)
    assert first.metrics["num_tokens"] == 16


def test_steps_rates_and_saves_are_those_of_the_config() -> None:
    """16 examples by 5 are 4 steps an epoch, the last of one example; lr falls from lr to lr/total."""
    events = run(TableActor(uniform()), num_epochs=2, batch_size=5, lr=0.8, save_every=3)
    steps = [event for event in events if isinstance(event, Step)]
    assert [event.metrics["num_tokens"] for event in steps] == [5, 5, 5, 1] * 2
    rates = [event.metrics["lr"] for event in steps]
    assert rates == pytest.approx([0.8 * (1 - i / 8) for i in range(8)])
    due = [event.step for event in events if isinstance(event, Checkpoint) and event.due]
    assert due == [3, 6, 8]


def test_every_example_is_seen_once_an_epoch() -> None:
    """With rate 0 the losses of an epoch add up to the data's, whatever the order."""
    events = run(TableActor(torch.randn(2, 5).double()), num_epochs=2, batch_size=5, lr=1e-12)
    steps = [event.metrics for event in events if isinstance(event, Step)]
    sums = [sum(m["loss"] * m["num_tokens"] for m in steps[k : k + 4]) for k in (0, 4)]
    assert sums[0] == pytest.approx(sums[1], rel=1e-9)


def test_a_continued_run_is_the_uninterrupted_one() -> None:
    class SGDActor(TableActor):  # Adam's moments are the learner's business, tested with it
        def __init__(self) -> None:
            super().__init__(uniform())
            self.optimiser = torch.optim.SGD([self.logits], lr=0.1)

    whole, other, resumed = SGDActor(), SGDActor(), SGDActor()
    metrics = [e.metrics for e in run(whole, num_epochs=3, batch_size=5) if isinstance(e, Step)]
    config = SFTConfig(num_epochs=3, batch_size=5, lr=0.3)
    for event in sft(config, actor=other, data=examples_of(COUNTS), seed=1):
        if isinstance(event, Checkpoint) and event.step == 7:
            arrays, facts = event.state()
            saved = {name: array.clone() for name, array in arrays.items()}, facts
            break
    rest = [e.metrics for e in run(resumed, num_epochs=3, batch_size=5, saved=saved)
            if isinstance(e, Step)]  # fmt: skip
    assert rest == metrics[7:]
    assert torch.equal(resumed.logits, whole.logits)


def test_perplexity_of_held_out_answers_is_its_formula() -> None:
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).double()
    actor, data = TableActor(logits), examples_of({(0, 1): 1, (1, 4): 2})
    logp = logits.log_softmax(-1)
    mean = float(-(logp[0, 1] + 2 * logp[1, 4]) / 3)
    found = held_out_loss(actor, data)
    assert found["eval/loss"] == pytest.approx(mean, rel=1e-12)
    assert found["eval/perplexity"] == pytest.approx(math.exp(mean), rel=1e-12)
    config = SFTConfig(num_epochs=1, batch_size=16, lr=1e-9)
    watch = Watch(lambda: held_out_loss(actor, data))
    events = list(sft(config, actor=actor, data=data, watch=watch, seed=0))
    _, told = [event for event in events if isinstance(event, Evaluation)]
    assert told.metrics["eval/loss"] == pytest.approx(mean, rel=1e-6)


def test_tokens_that_are_not_to_be_learned_carry_neither_loss_nor_gradient() -> None:
    [prompt] = prompts_of(1)
    data = given_answers([(prompt, Given((4, 5, 6), (True, False, True)))], pad_id=0)
    logp = torch.tensor([[-1.0, -50.0, -2.0]], dtype=torch.float64, requires_grad=True)
    part = Part(data.chosen, data.logp, 2.0, {"logp": logp}, {})
    loss, numbers = CrossEntropy()(part)
    loss.backward()
    assert float(loss.detach()) == float(numbers["loss"]) == 1.5
    assert logp.grad.tolist() == [[-0.5, 0.0, -0.5]]

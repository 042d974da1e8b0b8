"""Losses as values: sent by plain pickle to two processes, and whole distributions in chunks."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from plaudit.engine.local import LocalActor, LocalCritic, LocalReference, LocalRewardModel
from plaudit.engine.shared import SharedBackbone
from plaudit.engine.tops import LoRA
from plaudit.lm.loop import CrossEntropy
from plaudit.lm.ppo import ClippedPolicy, ClippedValue
from plaudit.models.formats.load import load_language_model
from plaudit.ops import aggregate
from plaudit.records.pairs import Pairs
from plaudit.records.sampling import Sampling
from plaudit.rewards.model import BradleyTerry
from simple_losses import SquaredError, weighted_step
from tiny_models import tiny_llama
from two_ranks import roles_of, work

PROMPTS = ("What is a river?", "Write one sentence about a cart.", "hi", "Name a pole.")
RANKS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ranks")
    tiny_llama(place / "model", layers=3)
    return place


def backbone_of(folder: Path, **how) -> SharedBackbone:
    lm = load_language_model(folder / "model", dtype=torch.float64)
    return SharedBackbone(lm, num_top_layers=2, **how)


def drawn(actor, num_answers: int = 3):
    prompts = [actor.backbone.lm.codec.prompt(text) for text in PROMPTS]
    sampling = Sampling(max_new_tokens=6, temperature=0.8)
    return actor.generate(prompts, num_answers=num_answers, sampling=sampling, seed=0)


def test_losses_by_pickle_teach_two_processes_what_one_learns(folder, tmp_path_factory) -> None:
    """Policy, value, cross-entropy and comparisons: the same weights (1e-6) and metrics."""
    batch = drawn(roles_of(folder)["actor"])
    shape, generator = batch.chosen.shape, torch.Generator().manual_seed(2)
    noise = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3)]
    fields = dict(zip(("adv", "ret", "value_old"), noise, strict=True))
    group = batch.group.tolist()
    rows = [[r for r in range(len(batch)) if group[r] == g] for g in set(group)]
    ends = [(a[0], b) for a in rows for b in a[1:]]
    pairs = Pairs(tuple(a for a, _ in ends), tuple(b for _, b in ends), (0.75,) * len(ends))
    count = int(batch.chosen.sum())
    steps = [
        ("actor", ClippedPolicy(0.2), {"adv": fields["adv"]}, count, 1e-3),
        ("critic", ClippedValue(0.2), fields, count, 1e-3),
        ("reward", BradleyTerry(0.01), {"pairs": pairs}, len(pairs), 1e-3),
        ("actor", CrossEntropy(), {}, count, 1e-3),
        ("critic", ClippedValue(0.2), fields, count, 1e-3),
    ]
    (folder / "work.pickle").write_bytes(pickle.dumps((batch, steps)))
    script = Path(__file__).parent.with_name("two_ranks.py")
    running = [
        subprocess.Popen([sys.executable, str(script), str(rank), str(RANKS), str(folder)])
        for rank in range(RANKS)
    ]
    assert [process.wait() for process in running] == [0] * RANKS
    whole = work(folder, 0, 1)
    for rank in range(RANKS):
        part = pickle.loads((folder / f"rank-{rank}.pickle").read_bytes())
        for ours, wanted in zip(part["metrics"], whole["metrics"], strict=True):
            assert ours == pytest.approx(wanted, rel=1e-9)
        for name, weight in part["weights"].items():
            torch.testing.assert_close(weight, whole["weights"][name], rtol=0, atol=1e-6)
    start = roles_of(folder)["actor"].learner.parameters
    assert any(not torch.equal(p, whole["weights"][f"actor.{n}"]) for n, p in start.items())


@dataclass(frozen=True)
class ReverseKL:
    """KL(π‖teacher) over the whole vocabulary; the field `teacher` holds its hidden states."""

    needs: ClassVar[tuple[str, ...]] = ("distribution",)
    together: ClassVar[bool] = False

    weight: torch.Tensor

    def __call__(self, part):
        def kl(logits, hidden):
            logp, other = logits.log_softmax(-1), (hidden @ self.weight.T).log_softmax(-1)
            return (logp.exp() * (logp - other)).sum(-1)

        each = part["distribution"].each(kl, part["teacher"])
        loss = aggregate(each, part.chosen, part.denominator)
        return loss, {"loss": loss}


@pytest.mark.parametrize("chunk", [1, 7, 4096])
def test_a_loss_of_whole_distributions_needs_no_array_of_them(folder, chunk, monkeypatch) -> None:
    """The exact reverse KL to a teacher, chunk by chunk, against whole logits; gradients too."""
    monkeypatch.setattr("plaudit.models.heads.chunk_rows", lambda vocabulary: chunk)
    actor = LocalActor(backbone_of(folder, max_tokens=60))
    batch = drawn(actor)
    head = actor.backbone.lm.model.get_output_embeddings().weight.detach()
    width = head.shape[1]
    teacher = torch.randn(
        (*batch.chosen.shape, width), generator=torch.Generator().manual_seed(3)
    ).to(head)
    count = int(batch.chosen.sum())
    loss = ReverseKL(head.flip(0).clone())
    told = actor.update(batch, loss, fields={"teacher": teacher}, denominator=count, lr=0.0)
    found = {n: p.grad.clone() for n, p in actor.learner.parameters.items() if p.grad is not None}

    model = load_language_model(folder / "model", dtype=torch.float64).model
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(batch)):
        prompt = batch.prompts[int(batch.group[row])].ids
        ids = batch.token[row][batch.there[row]].tolist()
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        logp = logits.log_softmax(-1)
        other = (teacher[row, : len(ids)] @ head.flip(0).T).log_softmax(-1)
        total = total + (logp.exp() * (logp - other)).sum()
    (total / count).backward()
    assert told["loss"] == pytest.approx(float(total.detach()) / count, rel=1e-7)
    named = dict(model.named_parameters())
    split = actor.backbone.split
    for name, grad in found.items():
        parts = name.removeprefix("base.").split(".")
        if parts[0] == "layers":
            parts[1] = str(int(parts[1]) + split)
        norm = torch.nn.utils.get_total_norm(found.values())
        scale = min(1.0, actor.learner.config.max_grad_norm / told["grad_norm"])
        wanted = named["model." + ".".join(parts)].grad * scale
        torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=1e-7 * float(norm))


def test_a_role_refuses_what_it_does_not_give_and_fields_of_other_lengths(folder) -> None:
    backbone = backbone_of(folder)
    actor, critic = LocalActor(backbone), LocalCritic(backbone)
    batch = drawn(actor)
    with pytest.raises(ValueError, match="CrossEntropy needs 'logp', but this role gives value"):
        critic.update(batch, CrossEntropy(), denominator=1, lr=0.0)
    short = {"adv": torch.zeros(3)}
    with pytest.raises(ValueError, match="field 'adv' has 3 rows, but the batch has 12"):
        actor.update(batch, ClippedPolicy(0.2), fields=short, denominator=1, lr=0.0)
    with pytest.raises(KeyError, match="asks for 'adv', but is given logp, entropy"):
        actor.update(batch, ClippedPolicy(0.2), denominator=1, lr=0.0)


def test_any_top_can_be_taught_by_adapters(folder) -> None:
    """Critic and reward model with adapters: the first numbers are the plain ones, the gradient of
    B is that of the whole weight by the chain rule, and what is saved is the merged top."""
    backbone = backbone_of(folder)
    batch = drawn(LocalActor(backbone))
    wanted = {"wanted": torch.ones(batch.chosen.shape, dtype=torch.float64)}
    count = int(batch.chosen.sum())
    plain, adapted = LocalCritic(backbone), LocalCritic(backbone, lora=LoRA(3))
    for critic in (plain, adapted):
        with torch.no_grad():
            critic.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    assert torch.equal(plain.values(batch), adapted.values(batch))
    numbers = [sum(p.numel() for p in c.learner.parameters.values()) for c in (plain, adapted)]
    assert numbers[1] < numbers[0] / 4
    losses = []
    for _ in range(6):
        told = adapted.update(batch, SquaredError(), fields=wanted, denominator=count, lr=1e-2)
        losses.append(told["loss"])
    assert losses[-1] < 0.8 * losses[0]
    merged = LocalCritic(backbone, top=adapted.trained.plain)
    merged.head.load_state_dict(adapted.head.state_dict())
    torch.testing.assert_close(merged.values(batch), adapted.values(batch), rtol=1e-6, atol=1e-6)
    saved = adapted.state()
    again = LocalCritic(backbone, lora=LoRA(3))
    again.restore(({n: x.clone() for n, x in saved[0].items()}, saved[1]))
    assert torch.equal(again.values(batch), adapted.values(batch))


def test_a_reward_model_of_adapters_is_saved_as_any_other(folder, tmp_path) -> None:
    from transformers import AutoModelForSequenceClassification

    backbone = backbone_of(folder)
    batch = drawn(LocalActor(backbone))
    model = LocalRewardModel(backbone, lora=LoRA(3))
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    pairs = Pairs((0, 3), (1, 4), (1.0, 0.0))
    for _ in range(3):
        model.update(batch, BradleyTerry(0.0), fields={"pairs": pairs}, denominator=2, lr=1e-2)
    model.save(tmp_path / "reward")
    loaded = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "reward", dtype=torch.float64
    ).eval()
    scores = model.scores(batch)
    for row in range(len(batch)):
        prompt = batch.prompts[int(batch.group[row])].ids
        ids = [*prompt, *batch.token[row][batch.there[row]].tolist()]
        with torch.no_grad():
            found = loaded(torch.tensor([ids])).logits[0, 0]
        assert float(found) == pytest.approx(float(scores[row]), abs=1e-5)


def test_roles_say_where_they_are_and_can_be_closed(folder) -> None:
    backbone = backbone_of(folder)
    actor, reference = LocalActor(backbone), LocalReference(backbone)
    batch = drawn(actor)
    before = reference.logprobs(batch)
    assert (actor.device, reference.dtype) == (torch.device("cpu"), torch.float64)
    actor.sync(0)
    weighted_step(actor, batch, torch.ones(batch.chosen.shape, dtype=torch.float64), lr=1e-3)
    with pytest.raises(ValueError, match="version 0 is asked for, but the weights are 1"):
        actor.sync(0)
    actor.close()
    assert backbone.states.arrays(batch) == {}
    assert torch.equal(reference.logprobs(batch), before)

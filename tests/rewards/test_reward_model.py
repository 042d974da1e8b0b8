"""The reward model: its start is exact, its loss is Bradley–Terry's, and it learns a planted rule."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from plaudit.engine.learner import AdamConfig
from plaudit.engine.local import LocalActor, LocalRewardModel
from plaudit.engine.shared import SharedBackbone
from plaudit.models.formats.load import load_language_model
from plaudit.models.probe_start import can_start_from_probe
from plaudit.records.events import Evaluation, Step
from plaudit.records.pairs import Pairs
from plaudit.records.sampling import Sampling
from plaudit.records.types import Trajectories
from plaudit.records.watch import Watch
from plaudit.rewards.model import BradleyTerry, RewardModelConfig, fit_reward_model, pair_metrics
from plaudit.rewards.probe import fit_probe
from tiny_models import tiny_llama

WORDS = ("river", "cart", "player", "pole", "France", "lovely", "happy", "sad", "great", "awful")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> SharedBackbone:
    folder = tiny_llama(tmp_path_factory.mktemp("model") / "tiny", layers=4, width=64, seed=3)
    return SharedBackbone(load_language_model(folder), num_top_layers=2)


@pytest.fixture(scope="module")
def drawn(backbone: SharedBackbone) -> Trajectories:
    actor = LocalActor(backbone)
    prompts = [backbone.lm.codec.prompt(f"Write about the {word}.") for word in WORDS]
    sampling = Sampling(max_new_tokens=10)
    return actor.generate(prompts, num_answers=24, sampling=sampling, seed=0)


def pairs_by(score: torch.Tensor, batch: Trajectories, *, seed: int, num: int = 60) -> Pairs:
    """`num` random pairs a prompt, each preferring the answer with the higher score."""
    rng = np.random.default_rng(seed)
    group = batch.group.tolist()
    a, b, share = [], [], []
    for g in sorted(set(group)):
        rows = [row for row, other in enumerate(group) if other == g]
        for _ in range(num):
            i, j = rng.choice(rows, size=2, replace=False).tolist()
            a.append(i)
            b.append(j)
            share.append(0.5 + 0.5 * float(torch.sign(score[i] - score[j])))
    return Pairs(tuple(a), tuple(b), tuple(share))


def planted(backbone: SharedBackbone, batch: Trajectories) -> torch.Tensor:
    """A rule about all tokens of an answer: their mean value in a fixed random lexicon."""
    direction = torch.randn(backbone.width, generator=torch.Generator().manual_seed(9))
    lexicon = backbone.lm.model.get_input_embeddings().weight.detach() @ direction
    return (lexicon[batch.token] * batch.chosen).sum(1) / batch.chosen.sum(1)


def test_the_probe_is_the_optimum_of_its_convex_loss() -> None:
    """At the solution the penalised cross-entropy's gradient, by autograd, is zero."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(80, 7, generator=generator, dtype=torch.float64) * 3 + 1
    planted = torch.randn(7, generator=generator, dtype=torch.float64)
    group = [i // 10 for i in range(80)]
    rng = np.random.default_rng(0)
    cast = [(10 * g + i, 10 * g + j) for g in range(8) for i, j in rng.integers(0, 10, (20, 2))]
    cast = [(int(i), int(j)) for i, j in cast if i != j]
    share = [float(features[i] @ planted > features[j] @ planted) for i, j in cast]
    pairs = Pairs(tuple(i for i, _ in cast), tuple(j for _, j in cast), tuple(share))
    probe = fit_probe(features, pairs, group)
    weight = probe.weight.clone().requires_grad_(True)
    x = (features - features.mean(0)) / features.std(0)
    d = x[list(pairs.a)] - x[list(pairs.b)]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        d @ weight, torch.tensor(pairs.share, dtype=torch.float64)
    )
    (loss + probe.ridge / 2 * weight @ weight).backward()
    assert float(weight.grad.abs().max()) < 1e-12
    assert probe.accuracy > 0.9


def test_a_written_probe_scores_as_the_probe_does(backbone, drawn) -> None:
    """The last token of the rebuilt top ranks answers as the probe on the mean token."""
    model = LocalRewardModel(backbone)
    assert can_start_from_probe(model.top)
    features = model.mean_tokens(drawn)
    assert features is not None
    pairs = pairs_by(planted(backbone, drawn), drawn, seed=1)
    probe = fit_probe(features, pairs, drawn.group.tolist())
    wanted = probe(features)
    model.start_from_probe(probe.weight / probe.std, drawn)
    got = model.scores(drawn)
    correlation = float(np.corrcoef(wanted.numpy(), got.numpy())[0, 1])
    assert correlation > 0.95
    slope = float(np.polyfit(wanted.numpy(), got.numpy(), 1)[0])
    assert slope == pytest.approx(1.0, abs=0.25)


def test_mean_tokens_is_the_mean_over_prompt_and_answer(backbone, drawn) -> None:
    """Against each answer run alone: the mean of the first top layer's normed input."""
    model = LocalRewardModel(backbone)
    features = model.mean_tokens(drawn)
    layer = model.top.base.layers[0]
    for row in (0, 30, len(drawn) - 1):
        ids = list(drawn.prompts[int(drawn.group[row])].ids)
        ids += drawn.token[row][drawn.there[row]].tolist()
        with torch.no_grad():
            out = backbone.lm.model(torch.tensor([ids]), output_hidden_states=True)
            states = out.hidden_states[backbone.split][0]
            torch.testing.assert_close(
                features[row], layer.input_layernorm(states).mean(0), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_learns_a_planted_rule_for_prompts_it_never_saw(backbone, drawn, seed) -> None:
    """Held-out pair accuracy of at least 0.80 on seven training prompts, from chance at 0.5."""
    group = drawn.group.tolist()
    rows = {
        part: [row for row, g in enumerate(group) if (g < 7) == (part == "train")]
        for part in ("train", "test")
    }
    parts = {name: drawn.select(index) for name, index in rows.items()}
    train, test = parts["train"], parts["test"]
    pairs = {name: pairs_by(planted(backbone, b), b, seed=seed) for name, b in parts.items()}
    model = LocalRewardModel(backbone)
    config = RewardModelConfig(num_epochs=4, lr=2e-3)
    events = list(
        fit_reward_model(
            config,
            model=model,
            batch=train,
            pairs=pairs["train"],
            watch=Watch(lambda: pair_metrics(model.scores(test), pairs["test"])),
            seed=seed,
        )
    )
    assert [e for e in events if isinstance(e, Evaluation)][-1].metrics["eval/accuracy"] >= 0.80
    assert pair_metrics(model.scores(test), pairs["test"])["eval/accuracy"] >= 0.80


def test_the_loss_is_bradley_terrys_by_hand(backbone, drawn) -> None:
    """Scores 0 everywhere (a zero head): −log σ(0) = log 2 whatever the shares."""
    model = LocalRewardModel(backbone)
    pairs = Pairs((0, 1), (2, 3), (1.0, 0.5))
    config = RewardModelConfig(start_from_probe=False, lr=1e-9)
    first = next(
        e
        for e in fit_reward_model(config, model=model, batch=drawn, pairs=pairs, seed=0)
        if isinstance(e, Step)
    )
    assert first.metrics["loss"] == pytest.approx(np.log(2), rel=1e-6)
    assert first.metrics["accuracy"] == 0.0


def test_pairs_among_rows_are_reindexed_and_others_dropped() -> None:
    pairs = Pairs((0, 4, 2), (1, 2, 5), (1.0, 0.0, 0.5))
    assert pairs.among([4, 2, 0]) == Pairs((0,), (1,), (0.0,))
    assert len(pairs.among([1])) == 0


def test_without_a_trunk_there_is_no_probe(backbone, drawn) -> None:
    whole = SharedBackbone(backbone.lm, num_top_layers=4)
    assert LocalRewardModel(whole).mean_tokens(drawn) is None


@pytest.mark.parametrize("top", [2, 4])
def test_a_prompt_of_many_answers_is_learned_in_parts_with_the_same_gradient(
    backbone, drawn, top, monkeypatch
) -> None:
    """Rows of 60 places and micro-batches of 80 against all answers of a prompt in one row."""
    lm = replace(backbone.lm, model=copy.deepcopy(backbone.lm.model).double())
    group = drawn.group.tolist()
    batch = drawn.select([row for row in range(len(drawn)) if group[row] < 2])
    pairs = pairs_by(planted(backbone, batch), batch, seed=0, num=20)

    grads, counts = [], []
    for max_row, max_tokens in ((2048, 4096), (60, 80)):
        monkeypatch.setattr("plaudit.engine.shared.MAX_ROW", max_row)
        whole = SharedBackbone(lm, num_top_layers=top, max_tokens=max_tokens)
        model = LocalRewardModel(whole, adam=AdamConfig(max_grad_norm=1e9))
        with torch.no_grad():
            model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        counts.append(len(list(whole.layouts(batch))))
        fields = {"pairs": pairs}
        model.update(batch, BradleyTerry(0.0), fields=fields, denominator=len(pairs), lr=0.0)
        grads.append({k: p.grad.clone() for k, p in model.learner.parameters.items()})
    assert counts[0] == 1
    assert counts[1] > 4
    for name, grad in grads[0].items():
        # The model's own RMSNorm rounds to float32 inside, whatever the dtype of the rest.
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=2e-6)

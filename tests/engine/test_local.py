"""The shared trunk computes what four separate models would, losses and gradients included."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from plaudit.engine.learner import AdamConfig
from plaudit.engine.local import ROLLOUT, LocalActor, LocalCritic, LocalReference, LocalRewardModel
from plaudit.engine.shared import SharedBackbone
from plaudit.models.backbone import gather_places, trunk_of
from plaudit.models.formats.load import LanguageModel, load_language_model
from plaudit.models.layout import micro_layouts, pack
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling
from plaudit.records.types import Trajectories
from simple_losses import weighted_step
from tiny_models import tiny_llama

LAYERS = 4
PROMPTS = ("What is a river?", "Write one sentence about a cart.", "hi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny", layers=LAYERS)


@pytest.fixture
def lm(folder) -> LanguageModel:
    return load_language_model(folder, dtype=torch.float64)


def backbone_of(lm: LanguageModel, top: int, max_tokens: int = 4096) -> SharedBackbone:
    return SharedBackbone(lm, num_top_layers=top, max_tokens=max_tokens)


def drawn(
    actor: LocalActor, num_answers: int = 3, seed: int = 0, tokens: int = 6, **how: float
) -> Trajectories:
    prompts = [actor.backbone.lm.codec.prompt(text) for text in PROMPTS]
    sampling = Sampling(max_new_tokens=tokens, **how)
    return actor.generate(prompts, num_answers=num_answers, sampling=sampling, seed=seed)


def alone(model, batch: Trajectories, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(final hidden states, logits) of one answer in a row of its own, by `transformers` alone."""
    prompt = batch.prompts[int(batch.group[row])].ids
    answer = batch.token[row][batch.chosen[row]].tolist()
    ids = torch.tensor([[*prompt, *answer]])
    out = model(ids, output_hidden_states=True)
    return out.hidden_states[-1][0], out.logits[0]


def plain_logprobs(model, batch: Trajectories, temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities of every answer token, each answer run on its own."""
    rows = []
    for row in range(len(batch)):
        start = len(batch.prompts[int(batch.group[row])].ids)
        n = int(batch.chosen[row].sum())
        logits = alone(model, batch, row)[1][start - 1 : start - 1 + n] / temperature
        logp = logits.log_softmax(-1).gather(1, batch.token[row, :n, None])[:, 0]
        rows.append(torch.nn.functional.pad(logp, (0, batch.chosen.shape[1] - n)))
    return torch.stack(rows)


@pytest.mark.parametrize("top", [1, 2, LAYERS])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_drawn_log_probabilities_are_the_trainers_and_the_models(lm, top, temperature) -> None:
    actor = LocalActor(backbone_of(lm, top))
    batch = drawn(actor, tokens=7, temperature=temperature)
    torch.testing.assert_close(actor.logprobs(batch), batch.logp, rtol=0, atol=1e-9)
    with torch.no_grad():
        plain = plain_logprobs(lm.model, batch, temperature)
    torch.testing.assert_close(batch.logp, plain * batch.chosen, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "sampling",
    [
        {"top_k": 5},
        {"top_p": 0.6},
        {"top_k": 9, "top_p": 0.8},
        {"min_p": 0.2},
        {"top_k": 9, "min_p": 0.1, "top_p": 0.9},
    ],
)
def test_filtered_draws_have_the_trainers_log_probabilities(lm, sampling) -> None:
    """Both sides renormalise over the same kept tokens (trl#6789: mean ratio 0.896, not 1)."""
    actor = LocalActor(backbone_of(lm, 2))
    batch = drawn(actor, seed=1, temperature=0.8, **sampling)
    ratio = (actor.logprobs(batch) - batch.logp).exp()
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=1e-9)


@pytest.mark.parametrize("top", [1, 3])
def test_trunk_states_kept_from_generation_are_those_of_a_fresh_pass(lm, top) -> None:
    actor = LocalActor(backbone_of(lm, top))
    batch = drawn(actor)
    states = actor.backbone.states
    kept = states.arrays(batch)
    states.drop(ROLLOUT)
    assert states.arrays(batch) == {}
    actor.backbone.remember("again", batch)
    for name, again in states.arrays(batch).items():
        torch.testing.assert_close(again, kept[name], rtol=0, atol=1e-10)


@pytest.mark.parametrize("top", [1, 2])
def test_gradients_of_the_actor_equal_those_of_the_unshared_model(lm, top) -> None:
    """One packed, shared, micro-batched update against whole answers run one by one."""
    backbone = backbone_of(lm, top, max_tokens=40)
    actor = LocalActor(backbone, adam=AdamConfig(max_grad_norm=1e9))
    batch = drawn(actor)
    weight = torch.randn(batch.chosen.shape, dtype=torch.float64)
    whole = copy.deepcopy(lm.model)
    whole.requires_grad_(True)
    plain = plain_logprobs(whole, batch)
    ((-plain * weight * batch.chosen).sum() / batch.chosen.sum()).backward()
    weighted_step(actor, batch, weight, lr=0.0)
    wanted = dict(whole.named_parameters())
    split = backbone.split
    for name, parameter in actor.learner.parameters.items():
        parts = name.removeprefix("base.").split(".")
        if parts[0] == "layers":
            parts[1] = str(int(parts[1]) + split)
        other = wanted["model." + ".".join(parts)]
        # The model's own RMSNorm rounds to float32 inside, whatever the dtype of the rest.
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("top", [2, LAYERS])
def test_micro_batches_change_neither_loss_nor_gradient(lm, top) -> None:
    grads = []
    for max_tokens in (4096, 30):
        fresh = replace(lm, model=copy.deepcopy(lm.model))
        actor = LocalActor(backbone_of(fresh, top, max_tokens))
        batch = drawn(actor)
        weight = torch.linspace(-1, 1, batch.chosen.numel(), dtype=torch.float64)
        weighted_step(actor, batch, weight.view(batch.chosen.shape), lr=0.0)
        grads.append([p.grad.clone() for p in actor.learner.parameters.values()])
        layouts = list(micro_layouts(batch, pad_id=0, max_tokens=max_tokens))
        assert (len(layouts) > 1) == (max_tokens == 30)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_every_layer_trained_means_embeddings_and_tied_head_too(lm) -> None:
    actor = LocalActor(backbone_of(lm, LAYERS))
    batch = drawn(actor)
    before = lm.model.get_output_embeddings().weight.detach().clone()
    weighted_step(actor, batch, torch.ones(batch.chosen.shape), lr=1e-3)
    assert not torch.equal(before, lm.model.get_output_embeddings().weight)


def test_scores_sit_on_the_last_real_token_whatever_pads(lm) -> None:
    """Pad equals the stop token here; the score is still that of the answer's own last token."""
    backbone = backbone_of(lm, 2)
    actor = LocalActor(backbone)
    batch = drawn(actor)
    model = LocalRewardModel(backbone)
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        scores = model.scores(batch)
        for row in range(len(batch)):
            last = alone(lm.model, batch, row)[0][-1]
            torch.testing.assert_close(scores[row], last @ model.head.weight[0])


def test_a_critic_starts_as_the_reward_model(lm) -> None:
    """Its value before the next token is the standardised score of the answer so far."""
    backbone = backbone_of(lm, 2)
    batch = drawn(LocalActor(backbone))
    reward = LocalRewardModel(backbone)
    with torch.no_grad():
        reward.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    critic = LocalCritic.from_reward_model(reward, scale=0.5, shift=0.25)
    value = critic.values(batch)
    for row in range(len(batch)):
        start = len(batch.prompts[int(batch.group[row])].ids)
        with torch.no_grad():
            hidden = alone(lm.model, batch, row)[0]
            for t in range(int(batch.chosen[row].sum())):
                score = hidden[start - 1 + t] @ reward.head.weight[0]
                torch.testing.assert_close(value[row, t], (score - 0.25) * 0.5)
    assert not value[~batch.chosen].any()


def test_roles_have_weights_of_their_own(lm) -> None:
    """An update of the actor moves neither the reference nor the critic nor the trunk."""
    backbone = backbone_of(lm, 2)
    actor, reference = LocalActor(backbone), LocalReference(backbone)
    critic = LocalCritic(backbone)
    batch = drawn(actor)
    trunk = trunk_of(lm.model, backbone.split)
    frozen = [p.clone() for p in trunk.parameters()]
    before = reference.logprobs(batch), critic.values(batch)
    weighted_step(actor, batch, torch.ones(batch.chosen.shape), lr=1e-2)
    assert torch.equal(reference.logprobs(batch), before[0])
    assert torch.equal(critic.values(batch), before[1])
    assert not torch.allclose(actor.logprobs(batch), before[0], atol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(frozen, trunk.parameters(), strict=True))
    fresh = drawn(actor)
    torch.testing.assert_close(actor.logprobs(fresh), fresh.logp, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_state_restores_weights_and_moments_exactly(folder, dtype) -> None:
    """Two steps, or one step, a state put into new objects, and one more: the same bits."""
    weight = None
    results = []
    for stop in (False, True):
        actor = LocalActor(backbone_of(load_language_model(folder, dtype=dtype), 2))
        batch = drawn(actor)
        weight = torch.ones(batch.chosen.shape)
        weighted_step(actor, batch, weight, lr=1e-2)
        if stop:
            arrays, facts = actor.state()
            arrays = {k: v.clone() for k, v in arrays.items()}
            states = actor.backbone.states
            actor = LocalActor(backbone_of(load_language_model(folder, dtype=dtype), 2))
            actor.backbone.states = states  # of the same trunk, read from the same file
            actor.restore((arrays, facts))
        weighted_step(actor, batch, weight, lr=1e-2)
        results.append((actor.state()[0], actor.version))
    assert results[0][1] == results[1][1] == 2
    for name, value in results[0][0].items():
        assert torch.equal(value, results[1][0][name]), name


def test_a_gradient_that_is_not_finite_takes_no_step(lm) -> None:
    actor = LocalActor(backbone_of(lm, 2))
    batch = drawn(actor)
    before = [p.clone() for p in actor.learner.parameters.values()]

    broken = torch.full(batch.chosen.shape, float("nan"))
    with pytest.raises(FloatingPointError, match="no step was taken"):
        weighted_step(actor, batch, broken, lr=1e-2)
    after = actor.learner.parameters.values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_more_layers_than_there_are_is_refused(lm) -> None:
    with pytest.raises(UserError, match="num_top_layers is 9, but this model has 4 layers"):
        backbone_of(lm, 9)


def test_a_layout_holds_every_token_once(lm) -> None:
    batch = drawn(LocalActor(backbone_of(lm, 2)))
    layout = pack(batch, pad_id=0)
    real = sum(len(p.ids) for p in batch.prompts) + int(batch.chosen.sum())
    assert int((layout.segment >= 0).sum()) == real
    flat = layout.token.flatten()
    assert torch.equal(flat[layout.own[layout.chosen]], layout.answer[layout.chosen])
    assert layout.own[layout.chosen].unique().numel() == int(batch.chosen.sum())


def test_gradients_of_a_shared_place_are_added_in_one_order() -> None:
    """Two threads, a thousand answers at each of a few places: the same bits every time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        generator = torch.Generator().manual_seed(0)
        hidden = torch.randn(2, 4, 64, generator=generator, requires_grad=True)
        index = torch.randint(8, (8000,), generator=generator)
        weight = torch.randn(8000, 64, generator=generator)
        grads = {
            torch.autograd.grad((gather_places(hidden, index) * weight).sum(), hidden)[0]
            .numpy()
            .tobytes()
            for _ in range(20)
        }
    finally:
        torch.set_num_threads(threads)
    assert len(grads) == 1

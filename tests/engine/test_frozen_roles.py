"""No frozen role may move: not by a bit, over a whole job, wherever the model is cut."""

from __future__ import annotations

import pytest
import torch

from plaudit.engine.local import ROLLOUT, LocalActor, LocalCritic, LocalReference, LocalRewardModel
from plaudit.engine.shared import SharedBackbone
from plaudit.engine.tops import LoRA
from plaudit.lm.ppo import PPOConfig, ppo
from plaudit.models.formats.load import load_language_model
from plaudit.records.sampling import Sampling
from simple_losses import weighted_step
from tiny_models import tiny_llama

LAYERS = 3
WAYS = ("weights", "adapters")
PROMPTS = ("What is a river?", "Write one sentence about a cart.", "hi", "Name a pole.")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory):
    place = tmp_path_factory.mktemp("models")
    return {u: tiny_llama(place / str(u), layers=LAYERS, untied=u) for u in (False, True)}


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("top", [1, 2, LAYERS])
@pytest.mark.parametrize("way", WAYS)
def test_ppo_moves_the_actor_and_the_critic_alone(folders, untied, top, way) -> None:
    lm = load_language_model(folders[untied])
    backbone = SharedBackbone(lm, num_top_layers=top)
    actor = LocalActor(backbone) if way == "weights" else LocalActor(backbone, lora=LoRA(2))
    reference, reward = LocalReference(backbone), LocalRewardModel(backbone)
    with torch.no_grad():
        reward.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    reward.freeze()
    critic = LocalCritic.from_reward_model(reward)
    prompts = [lm.codec.prompt(text) for text in PROMPTS]
    sampling = Sampling(max_new_tokens=6, temperature=0.8)
    probe = actor.generate(prompts, num_answers=2, sampling=sampling, seed=3)
    backbone.states.drop(ROLLOUT)  # the sampler's, which round differently from the trainer's
    backbone.remember("probe", probe)

    def frozen() -> dict[str, torch.Tensor]:
        found = {f"reference.{k}": v for k, v in reference.top.state_dict().items()}
        found |= {f"reward.{k}": v for k, v in reward.top.state_dict().items()}
        found |= {f"reward_head.{k}": v for k, v in reward.head.state_dict().items()}
        found |= {f"head.{k}": v for k, v in reference.head.module.state_dict().items()}
        if backbone.trunk is not None:
            found |= {f"trunk.{k}": v for k, v in backbone.trunk.state_dict().items()}
        found["logp"], found["score"] = reference.logprobs(probe), reward.scores(probe)
        found["plain logp"] = reference.logprobs(probe.as_given())
        return {name: value.clone() for name, value in found.items()}

    before, moving = frozen(), actor.logprobs(probe)
    config = PPOConfig(
        num_steps=3, prompts_per_step=4, answers_per_prompt=2, lr=1e-2, max_policy_kl=1e9
    )
    for _ in ppo(
        config,
        actor=actor,
        critic=critic,
        reference=reference,
        reward=reward,
        prompts=prompts,
        sampling=sampling,
        seed=0,
    ):
        pass
    for name, value in frozen().items():
        assert torch.equal(value, before[name]), name
    assert float((actor.logprobs(probe) - moving).abs().max()) > 1e-2


@pytest.mark.parametrize("untied", [False, True])
def test_a_model_trained_whole_is_trained_in_all_its_numbers(folders, untied) -> None:
    """Embedding, head and norm learn; the reference keeps what they were."""
    lm = load_language_model(folders[untied], dtype=torch.float64)
    backbone = SharedBackbone(lm, num_top_layers=LAYERS)
    actor, reference = LocalActor(backbone), LocalReference(backbone)
    batch = actor.generate(
        [lm.codec.prompt(text) for text in PROMPTS],
        num_answers=2,
        sampling=Sampling(max_new_tokens=6),
        seed=0,
    )
    start = {name: p.detach().clone() for name, p in lm.model.named_parameters()}

    weighted_step(actor, batch, torch.ones(batch.chosen.shape), lr=1e-2)
    for name, p in lm.model.named_parameters():
        assert not torch.equal(p, start[name]), name
    torch.testing.assert_close(reference.logprobs(batch), batch.logp, rtol=0, atol=1e-9)
    saved = actor.state()
    fresh = load_language_model(folders[untied], dtype=torch.float64)
    again = LocalActor(SharedBackbone(fresh, num_top_layers=LAYERS))
    again.restore(saved)
    assert torch.equal(again.logprobs(batch), actor.logprobs(batch))

"""The stages of the RLHF job that a model takes part in, one function each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from plaudit.engine.local import ROLLOUT, LocalCritic, LocalReference, LocalRewardModel
from plaudit.lm.best_of_n import best_of_n
from plaudit.lm.grpo import grpo
from plaudit.lm.online_dpo import online_dpo
from plaudit.lm.ppo import ppo
from plaudit.lm.reinforce_pp import reinforce_pp
from plaudit.lm.rloo import rloo
from plaudit.lm.sft import sft
from plaudit.models.answers import given_answers
from plaudit.ops import outcome_reward
from plaudit.pipelines.pieces import with_pieces
from plaudit.pipelines.rlhf.answers import answers_from, draw_answers, require_own
from plaudit.pipelines.rlhf.evaluation import Gold, gold_scores, reward_model_figures
from plaudit.pipelines.rlhf.opinions import Opinions
from plaudit.pipelines.rlhf.parts import Parts
from plaudit.pipelines.stages import Stages
from plaudit.records.errors import UserError
from plaudit.records.events import Event
from plaudit.records.state import Saved, part_of
from plaudit.records.types import Prompt, Trajectories
from plaudit.records.watch import Watch
from plaudit.rewards.judges import RewardJudge
from plaudit.rewards.model import fit_reward_model, pair_metrics

Improver = Callable[[Parts, Stages, "StandardisedReward", LocalReference], None]
"""Makes the actor climb the reward near the reference."""


def fine_tune(parts: Parts, stages: Stages) -> None:
    """The actor learns the demonstrations, where there are any."""
    if not parts.examples:
        return
    config, states = parts.inputs.config, parts.backbone.states
    data = given_answers(parts.examples, pad_id=parts.codec.pad_id)
    parts.backbone.remember("sft", data)
    kept = stages.take(
        "sft",
        lambda saved: sft(config.sft, actor=parts.actor, data=data, seed=config.seed, saved=saved),
        keep=lambda name: name.startswith("actor/weight."),
        headline=["loss", "lr"],
    )
    states.drop("sft")
    parts.actor.restore(_weights("actor", kept.arrays))


def draw(parts: Parts, stages: Stages, name: str, prompts: Sequence[Prompt]) -> Trajectories:
    """Answers of the actor as it is now; the trunk's states of them are kept under `name`."""
    config, states = parts.inputs.config, parts.backbone.states
    num = config.feedback.answers_per_prompt
    kept = stages.take(
        name,
        lambda saved: draw_answers(
            parts.actor,
            prompts,
            num_answers=num,
            sampling=config.sampling,
            seed=config.seed,
            also=states.arrays,
            saved=saved,
        ),
        headline=["answer/length", "answer/finished", "policy/nll"],
    )
    states.drop(ROLLOUT)
    batch = answers_from(
        kept.arrays, prompts, num_answers=num, sampling=config.sampling, codec=parts.codec
    )
    if "answer_hidden" in kept.arrays:
        hidden = (kept.arrays[n].to(parts.actor.device) for n in ("prompt_hidden", "answer_hidden"))
        states.put(name, batch, *hidden)
    return batch


def learn_reward(
    parts: Parts, stages: Stages, learn: Opinions, judge: Opinions
) -> tuple[LocalRewardModel, dict[str, Any], Tensor]:
    """A reward model of the opinions, frozen; its figures on those it did not learn from, and its
    scores of their answers."""
    config, backbone = parts.inputs.config, parts.backbone
    model = LocalRewardModel(backbone, adam=config.adam)
    backbone.remember("learn", learn.batch)
    backbone.remember("judge", judge.batch)
    watch = Watch(lambda: pair_metrics(model.scores(judge.batch), judge.pairs))
    kept = stages.take(
        "reward_model",
        lambda saved: fit_reward_model(
            config.reward_model,
            model=model,
            batch=learn.batch,
            pairs=learn.pairs,
            watch=watch,
            seed=config.seed,
            saved=saved,
        ),
        keep=lambda name: name.startswith("model/weight."),
        headline=["loss", "accuracy", "eval/accuracy"],
    )
    model.restore(_weights("model", kept.arrays))
    model.freeze()
    scores = model.scores(judge.batch)
    return model, reward_model_figures(scores, judge), scores


def improve_by_ppo(
    parts: Parts, stages: Stages, reward: StandardisedReward, reference: LocalReference
) -> None:
    """The actor climbs the reward near the reference; the critic starts as the reward model."""
    config, gold = parts.inputs.config, parts.inputs.gold
    critic = LocalCritic.from_reward_model(
        reward.model, scale=1 / reward.std, shift=reward.mean, adam=config.adam
    )
    kept = stages.take(
        "ppo",
        lambda saved: with_pieces(
            ppo(
                config.ppo,
                actor=parts.actor,
                critic=critic,
                reference=reference,
                reward=reward,
                prompts=parts.train,
                sampling=config.sampling,
                seed=config.seed,
                gold=None if gold is None else GoldReward(gold),
                saved=saved,
            ),
            parts.codec,
        ),
        keep=lambda name: name.startswith("actor/weight."),
        headline=["objective/scores", "objective/kl", "answer/length"],
    )
    parts.actor.restore(_weights("actor", kept.arrays))


def improving_by(name: str, algorithm: Callable[..., Iterator[Event]]) -> Improver:
    """An improver that asks a judge of whole answers, and keeps no critic."""

    def improve(
        parts: Parts, stages: Stages, reward: StandardisedReward, reference: LocalReference
    ) -> None:
        config, gold = parts.inputs.config, parts.inputs.gold
        watched = {} if gold is None else {"gold": GoldReward(gold)}
        given: dict[str, Any] = {"judge": RewardJudge(reward, "reward_model", watched=watched)}
        if name != "best_of_n":
            given["reference"] = reference
        kept = stages.take(
            name,
            lambda saved: with_pieces(
                algorithm(
                    getattr(config, name),
                    actor=parts.actor,
                    prompts=parts.train,
                    sampling=config.sampling,
                    seed=config.seed,
                    saved=saved,
                    **given,
                ),
                parts.codec,
            ),
            keep=lambda array: array.startswith("actor/weight."),
            headline=["objective/scores", "groups/with_signal", "answer/length"],
        )
        parts.actor.restore(_weights("actor", kept.arrays))

    return improve


IMPROVERS: dict[str, Improver] = {
    "ppo": improve_by_ppo,
    "grpo": improving_by("grpo", grpo),
    "rloo": improving_by("rloo", rloo),
    "reinforce_pp": improving_by("reinforce_pp", reinforce_pp),
    "online_dpo": improving_by("online_dpo", online_dpo),
    "best_of_n": improving_by("best_of_n", best_of_n),
}
"""How the actor is improved, by the value of the key `improve`; a stage has its improver's name."""


def save_models(parts: Parts, stages: Stages, reward_model: LocalRewardModel) -> None:
    """Write the improved policy, its adapter where there is one, and the reward model."""
    run = stages.run.path
    parts.actor.save(run / "model")
    if parts.inputs.config.lora_rank:
        parts.actor.save_adapter(run / "adapter")
    reward_model.save(run / "reward_model")


@dataclass(frozen=True)
class GoldReward:
    """The gold rater in the role of a reward, for the curve that is logged beside the learned one."""

    gold: Gold

    def __call__(self, batch: Trajectories) -> Tensor:
        """Its scores, on the last chosen tokens [B, T]."""
        scores = torch.tensor(gold_scores(self.gold, batch), dtype=torch.float64)
        return outcome_reward(scores.to(batch.chosen.device), batch.chosen)


@dataclass(frozen=True)
class StandardisedReward:
    """Scores with mean 0 and s.d. 1 over the starting model's answers to the training prompts.

    Source: Huang et al. 2024 (2403.17031), detail 7, for the mean; the s.d. makes one unit of
    score, and so the KL coefficient, mean the same for every reward model.
    """

    model: LocalRewardModel
    mean: float
    std: float

    def __call__(self, batch: Trajectories) -> Tensor:
        """Standardised scores, on the last chosen tokens [B, T]."""
        return outcome_reward((self.model.scores(batch) - self.mean) / self.std, batch.chosen)


def standardised(model: LocalRewardModel, scores: Tensor) -> StandardisedReward:
    """UserError where the scores do not differ by more than rounding: no unit can be made of them."""
    std = float(scores.std())
    if not std > 1e-6 * max(1.0, float(scores.abs().max())):
        raise UserError(
            "the reward model gives all answers to the training prompts the same score, so "
            "nothing could be climbed: give prompts that are answered in more than one way, or "
            "more comparisons",
            new_run=True,
        )
    return StandardisedReward(model, float(scores.mean()), std)


def _weights(role: str, arrays: dict[str, Tensor]) -> Saved:
    """What a stage kept of a role, for it to begin anew with."""
    require_own(arrays, f"{role}/weight.")
    return part_of((arrays, {role: {"version": 0}}), role)

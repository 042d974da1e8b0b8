"""A cart's push and a token: the same credit. A world of tokens, judged by both halves of Plaudit."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from plaudit.agents.on_policy import advantage_batch, to_steps
from plaudit.envs.make import make_worlds
from plaudit.envs.rollout import Experience, collect
from plaudit.envs.settings import WorldSettings
from plaudit.lm.steps import credit, token_steps
from plaudit.nets.control_nets import network
from plaudit.nets.policies import actor
from plaudit.ops import outcome_reward
from plaudit.records.sampling import Sampling
from plaudit.records.types import Prompt, Trajectories

STOP, NUM_TOKENS, LONGEST = 0, 4, 6
GAMMA, LAM, KL_COEF = 0.97, 0.9, 0.1


class TokenWorld(gym.Env[Any, Any]):
    """Tokens are written until STOP or the longest answer; then the answer is scored."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    observation_space = spaces.Box(-1.0, float(NUM_TOKENS), (LONGEST,), np.float32)
    action_space = spaces.Discrete(NUM_TOKENS)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.answer: list[int] = []
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.answer.append(int(action))
        over = action == STOP or len(self.answer) == LONGEST
        return self._seen(), score(self.answer) if over else 0.0, bool(over), False, {}

    def _seen(self) -> np.ndarray:
        row = np.full(LONGEST, -1.0, np.float32)
        row[: len(self.answer)] = self.answer
        return row


gym.register("TokenWorld-v0", TokenWorld)


def score(answer: list[int]) -> float:
    """Any opinion of an answer will do."""
    return 0.3 * len(answer) - 0.5 * answer.count(2) + 0.1 * answer[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_credit_of_tokens_is_that_of_any_world(seed):
    worlds = make_worlds(WorldSettings(env="TokenWorld-v0", num_envs=3), seed=seed)
    rng = np.random.default_rng(seed)
    policy = actor(worlds.obs_spec, worlds.action_spec, rng=rng, gain_out=1.0)
    critic = network(worlds.obs_spec, 1, rng=rng)
    seen = collect(worlds, lambda obs: policy.act(obs, rng), worlds.reset(), 60)
    steps = to_steps(seen, policy, critic)
    logp_ref = torch.full_like(steps.logp, -np.log(NUM_TOKENS))
    seen.reward -= KL_COEF * (steps.logp - logp_ref).numpy()
    batch = advantage_batch(seen, policy, critic, gamma=GAMMA, lam=LAM)
    by_world = batch.adv.view(3, 60), batch.ret.view(3, 60)

    answers = whole_answers(seen)
    assert len(answers) > 20
    assert any(seen.action[copy, end - 1] != STOP for copy, _, end in answers)  # some were cut
    trajectories, value, scores = as_text(answers, seen, steps.logp, steps.value)
    text = token_steps(
        trajectories,
        value=value,
        reward=outcome_reward(scores, trajectories.chosen),
        logp_ref=torch.full_like(trajectories.logp, -np.log(NUM_TOKENS)),
        kl_coef=KL_COEF,
    )
    adv, ret = credit(text, gamma=GAMMA, lam=LAM)
    for row, (copy, begin, end) in enumerate(answers):
        length = end - begin
        torch.testing.assert_close(adv[row, :length], by_world[0][copy, begin:end])
        torch.testing.assert_close(ret[row, :length], by_world[1][copy, begin:end])


def whole_answers(seen: Experience) -> list[tuple[int, int, int]]:
    """(copy, begin, end) of every episode that lies in the experience as a whole."""
    found = []
    for copy, ends in enumerate(seen.boundary):
        begin = 0
        for t in np.flatnonzero(ends):
            found.append((copy, begin, int(t) + 1))
            begin = int(t) + 1
    return found


def as_text(
    answers: list[tuple[int, int, int]], seen: Experience, logp: torch.Tensor, value: torch.Tensor
) -> tuple[Trajectories, torch.Tensor, torch.Tensor]:
    """The episodes as answers to one prompt, padded, with their values and scores."""

    def rows(x: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(len(answers), LONGEST, dtype=x.dtype)
        for row, (copy, begin, end) in enumerate(answers):
            out[row, : end - begin] = x[copy, begin:end]
        return out

    tokens = [seen.action[copy, begin:end].tolist() for copy, begin, end in answers]
    trajectories = Trajectories.of_answers(
        prompts=(Prompt("", ()),),
        group=torch.zeros(len(answers), dtype=torch.int64),
        token=rows(torch.from_numpy(seen.action)),
        mask=rows(torch.ones_like(logp, dtype=torch.bool)),
        logp=rows(logp),
        terminated=torch.tensor([answer[-1] == STOP for answer in tokens]),
        texts=tuple(map(str, tokens)),
        sampling=Sampling(max_new_tokens=LONGEST),
    )
    return trajectories, rows(value), torch.tensor([score(answer) for answer in tokens])

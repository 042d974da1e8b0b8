"""The algorithm of docs/algorithms/your_own.md, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from plaudit.engine.local import LocalActor
from plaudit.engine.shared import SharedBackbone
from plaudit.models.formats.load import load_language_model
from plaudit.ops import outcome_reward
from plaudit.records.events import Step
from plaudit.records.imports import load_module
from plaudit.records.sampling import Sampling
from tabular_roles import ONE_TOKEN, TableActor, TableReward, prompts_of
from tiny_models import tiny_llama

PAGE = Path(__file__).parents[2] / "docs" / "algorithms" / "your_own.md"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    [block] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    file = tmp_path_factory.mktemp("page") / "your_own.py"
    file.write_text(block)
    return vars(load_module(str(file), "algorithm"))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_on_a_table_it_finds_the_best_answer(page, seed) -> None:
    reward = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)).double()
    actor = TableActor(torch.zeros(3, 5, dtype=torch.float64))
    config = page["ToyConfig"](num_steps=150, prompts_per_step=3, answers_per_prompt=64, lr=0.1)
    events = page["toy"](
        config,
        actor=actor,
        reward=TableReward(reward),
        prompts=prompts_of(3),
        sampling=ONE_TOKEN,
        seed=seed,
    )
    list(events)
    chance = actor.logits.detach().softmax(-1).gather(1, reward.argmax(1, keepdim=True))
    assert float(chance.min()) > 0.9


def test_on_a_model_the_reward_rises(page, tmp_path) -> None:
    lm = load_language_model(tiny_llama(tmp_path / "model", layers=2))
    with torch.no_grad():  # random embeddings are too short for any logit to stand out
        lm.model.get_input_embeddings().weight.mul_(8)
    actor = LocalActor(SharedBackbone(lm, num_top_layers=1))

    def reward(batch):
        even = ((batch.token % 2 == 0) & batch.chosen).sum(1) / batch.chosen.sum(1)
        return outcome_reward(even, batch.chosen)

    events = page["toy"](
        page["ToyConfig"](num_steps=15, answers_per_prompt=16, lr=2e-2),
        actor=actor,
        reward=reward,
        prompts=[lm.codec.prompt(text) for text in ("hi", "What is a river?")],
        sampling=Sampling(max_new_tokens=6),
        seed=0,
    )
    scores = [event.metrics["objective/scores"] for event in events if isinstance(event, Step)]
    assert sum(scores[-3:]) / 3 > scores[0] + 0.1

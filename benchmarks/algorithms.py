"""Every algorithm on shortest walks: a policy that has read random walks learns to take short ones.

    python benchmarks/algorithms.py [--only grpo,rloo,...] [--seeds 5]

A directed graph of 21 nodes; a walk is a node, then the nodes it goes through, an end, ten steps at
most. The policy (about 0.1 million weights, from scratch) first reads 1,000 random walks. An answer's
score is its optimality: steps of the shortest walk to the goal over steps taken, 0 for one that takes
an edge that is not there or does not arrive. Algorithms that ask for scores draw the same number of
answers; DPO learns from pairs of the random walks alone, of one start and different scores. Reported
over seeds: optimality of sampled answers before and after, answers drawn, KL spent, processor seconds.
The task is trlX's (Castricato et al.), with a generator of our own.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import description
from plaudit.engine.local import LocalActor, LocalCritic, LocalReference
from plaudit.engine.shared import SharedBackbone
from plaudit.lm.best_of_n import BestOfNConfig, best_of_n
from plaudit.lm.dpo import DPOConfig, dpo
from plaudit.lm.grpo import GRPOConfig, grpo
from plaudit.lm.online_dpo import OnlineDPOConfig, online_dpo
from plaudit.lm.ppo import PPOConfig, ppo
from plaudit.lm.reinforce_pp import ReinforcePPConfig, reinforce_pp
from plaudit.lm.rloo import RLOOConfig, rloo
from plaudit.lm.sft import SFTConfig, sft
from plaudit.models.formats.load import LanguageModel
from plaudit.records.events import Event
from plaudit.records.files import write_text
from plaudit.records.pairs import Pairs
from plaudit.records.sampling import Sampling
from plaudit.rewards.judges import ScoredReward
from small_worlds import RuleJudge, accuracy, examples, language_model, whole_actor

RESULTS = Path(__file__).parent / "results" / "algorithms.md"
NODES = "abcdefghijklmnopqrstu"
GOAL, LONGEST, WALKS, EDGES = "a", 10, 1000, 0.1
SAMPLING = Sampling(max_new_tokens=LONGEST + 1)
STEPS, PROMPTS, ANSWERS, LR = 120, 16, 8, 1e-3


class Walks:
    """A graph, its shortest ways to the goal, and random walks on it."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        num = len(NODES)
        edge = rng.random((num, num)) < EDGES
        np.fill_diagonal(edge, False)
        edge[np.arange(num), (np.arange(num) + 1) % num] = True  # the goal can always be reached
        self.edge = edge
        self.steps = np.full(num, num)
        self.steps[0] = 0
        for _ in range(num):
            for node in range(1, num):
                self.steps[node] = min(self.steps[node], 1 + self.steps[edge[node]].min())
        self.starts = [n for n in range(1, num) if self.steps[n] <= LONGEST]
        self.rows = [self._walk(rng) for _ in range(WALKS)]

    def _walk(self, rng: np.random.Generator) -> tuple[str, str]:
        node = int(rng.choice(self.starts))
        start, way = NODES[node], ""
        while len(way) < LONGEST and node:
            node = int(rng.choice(np.flatnonzero(self.edge[node])))
            way += NODES[node]
        return start, way

    def optimality(self, start: str, way: str) -> float:
        """Steps of the shortest walk over steps taken; 0 for what is no walk to the goal."""
        nodes = [NODES.index(c) if c in NODES else -1 for c in start + way]
        legal = all(a > 0 and b >= 0 and self.edge[a, b] for a, b in itertools.pairwise(nodes))
        arrived = way != "" and nodes[-1] == 0
        return float(self.steps[nodes[0]] / len(way)) if legal and arrived else 0.0


@dataclass(frozen=True)
class World:
    """What every algorithm is given."""

    walks: Walks
    lm: LanguageModel
    backbone: SharedBackbone
    actor: LocalActor
    reference: LocalReference
    seed: int

    def given(self) -> dict[str, Any]:
        prompts = [self.lm.codec.prompt(NODES[n]) for n in self.walks.starts]
        return {"actor": self.actor, "prompts": prompts, "sampling": SAMPLING, "seed": self.seed}

    def judge(self) -> RuleJudge:
        return RuleJudge(self.walks.optimality)


def _common(**more: Any) -> dict[str, Any]:
    return {"num_steps": STEPS, "prompts_per_step": PROMPTS, "answers_per_prompt": ANSWERS, **more}


def run_ppo(world: World) -> Iterator[Event]:
    """With a critic that begins empty."""
    config = PPOConfig(
        **_common(lr=LR, num_minibatches=4, critic_lr=LR, kl_coef=0.0, kl_target=None,
                  missing_eos_penalty=0.0, critic_steps=5, lam=1.0)
    )  # fmt: skip
    critic = LocalCritic(world.backbone)
    return ppo(
        config, critic=critic, reference=world.reference, reward=ScoredReward(world.judge()),
        **world.given(),
    )  # fmt: skip


def _judged(algorithm: Callable[..., Iterator[Event]], config: Any) -> Callable[[World], Any]:
    def run(world: World) -> Iterator[Event]:
        more = {} if algorithm is best_of_n else {"reference": world.reference}
        return algorithm(config, judge=world.judge(), **more, **world.given())

    return run


def run_dpo(world: World) -> Iterator[Event]:
    """Pairs of the random walks of one start, the shorter arrival chosen."""
    rows = sorted(set(world.walks.rows))
    data = examples(world.lm, rows)
    score = [world.walks.optimality(*row) for row in rows]
    by_start: dict[str, list[int]] = {}
    for i, (start, _) in enumerate(rows):
        by_start.setdefault(start, []).append(i)
    both = [(i, j) for mine in by_start.values() for i in mine for j in mine if score[i] > score[j]]
    order = np.random.default_rng(world.seed).permutation(len(both))[:4000]
    chosen = [both[k] for k in order]
    pairs = Pairs(tuple(a for a, _ in chosen), tuple(b for _, b in chosen), (1.0,) * len(chosen))
    config = DPOConfig(lr=LR / 4, batch_size=32, beta=0.1, nll_coef=0.1)
    logp_ref = world.reference.logprobs(data)
    return dpo(
        config, actor=world.actor, data=data, pairs=pairs, logp_ref=logp_ref, seed=world.seed
    )


RUNS: dict[str, Callable[[World], Iterator[Event]]] = {
    "ppo": run_ppo,
    "grpo": _judged(grpo, GRPOConfig(**_common(lr=LR, num_minibatches=2))),
    "rloo": _judged(rloo, RLOOConfig(**_common(lr=LR, num_minibatches=2, kl_coef=0.0))),
    "reinforce_pp": _judged(
        reinforce_pp, ReinforcePPConfig(**_common(lr=LR, num_minibatches=2, kl_coef=0.0))
    ),
    "online_dpo": _judged(online_dpo, OnlineDPOConfig(**_common(lr=LR / 2))),
    "best_of_n": _judged(best_of_n, BestOfNConfig(**_common(lr=LR))),
    "dpo": run_dpo,
}


def made(seed: int) -> World:
    """A policy that has read the random walks."""
    walks = Walks(seed)
    lm = language_model(NODES, width=64, layers=2, context=16, seed=seed)
    backbone, actor = whole_actor(lm)
    data = examples(lm, walks.rows)
    for _ in sft(
        SFTConfig(num_epochs=8, batch_size=64, lr=3e-3), actor=actor, data=data, seed=seed
    ):
        pass
    return World(walks, lm, backbone, actor, LocalReference(backbone), seed)


def measured(name: str, seed: int) -> dict[str, float]:
    """One run: optimality before and after, answers drawn, KL spent, seconds."""
    world = made(seed)
    prompts = world.given()["prompts"]
    before = accuracy(world.actor, prompts, world.walks.optimality, SAMPLING, answers=32)
    begun = time.process_time()
    for _ in RUNS[name](world):
        pass
    seconds = time.process_time() - begun
    after = accuracy(world.actor, prompts, world.walks.optimality, SAMPLING, answers=32)
    batch = world.actor.generate(prompts, num_answers=32, sampling=SAMPLING, seed=7)
    spent = ((batch.logp - world.reference.logprobs(batch)) * batch.chosen).sum(1).mean()
    drawn = 0 if name == "dpo" else STEPS * PROMPTS * ANSWERS
    return {
        "before": before,
        "after": after,
        "drawn": drawn,
        "kl": float(spent),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(RUNS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    data = [
        np.mean([w.optimality(*row) for row in w.rows]) for w in map(Walks, range(chosen.seeds))
    ]
    lines = [
        "# Algorithms on shortest walks",
        "",
        f"{description()}. {chosen.seeds} seeds, each with a graph of its own; means, least and "
        f"greatest. The walks that are read have optimality {np.mean(data):.2f}.",
        "",
        "| algorithm | optimality before | after (least to greatest) | answers drawn | KL, nats | processor s |",
        "|---|---|---|---|---|---|",
    ]
    for name in chosen.only.split(","):
        runs = [measured(name, seed) for seed in range(chosen.seeds)]
        mean = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
        after = sorted(run["after"] for run in runs)
        cells = (
            name,
            f"{mean['before']:.2f}",
            f"{mean['after']:.3f} ({after[0]:.2f} to {after[-1]:.2f})",
            f"{mean['drawn']:,.0f}",
            f"{mean['kl']:.1f}",
            f"{mean['seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    lines += ["", "How it is measured: `benchmarks/algorithms.py`.", ""]
    write_text(chosen.out, "\n".join(lines))


if __name__ == "__main__":
    main()

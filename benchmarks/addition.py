"""Two-digit addition by a character policy made from scratch, then taught by right and wrong alone.

    python benchmarks/addition.py [--only grpo,rloo,ppo] [--seeds 5] [--abstain 0.3]

A model of about 0.2 million weights first reads sums until its sampled answers are right about three
times in ten; then each algorithm draws answers to the same prompts and is told only which are right.
Reported: sampled accuracy (temperature 1) before and after on prompts that are never trained on, by
seed, and processor seconds of one thread. With --abstain that share of the judgements is withheld.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from machine import description
from plaudit.engine.local import LocalActor, LocalCritic, LocalReference
from plaudit.lm.grpo import GRPOConfig, grpo
from plaudit.lm.ppo import PPOConfig, ppo
from plaudit.lm.rloo import RLOOConfig, rloo
from plaudit.lm.sft import SFTConfig, sft
from plaudit.records.events import Event
from plaudit.records.files import write_text
from plaudit.records.sampling import Sampling
from plaudit.rewards.judges import ScoredReward
from small_worlds import RuleJudge, accuracy, examples, language_model, whole_actor

RESULTS = Path(__file__).parent / "results" / "addition.md"
SAMPLING = Sampling(max_new_tokens=4)
START, GOAL = 0.29, 0.95
MOST_STEPS, LR = 600, 3e-4


def right(prompt: str, answer: str) -> float:
    """1 for the sum, 0 for anything else."""
    a, b = prompt.removesuffix("=").split("+")
    return float(answer == str(int(a) + int(b)))


def sums(seed: int) -> tuple[list[str], list[str]]:
    """All sums of two numbers below 100 in the seed's order: to train on, and held out."""
    every = [f"{a:02d}+{b:02d}=" for a in range(100) for b in range(100)]
    order = np.random.default_rng(seed).permutation(len(every))
    shuffled = [every[i] for i in order]
    return shuffled[512:], shuffled[:512]


def warmed(seed: int):
    """A policy that adds right about three times in ten, and what it took."""
    lm = language_model("0123456789+=", width=64, layers=3, context=16, seed=seed)
    backbone, actor = whole_actor(lm)
    train, held = sums(seed)
    rows = [(p, str(sum(map(int, p.removesuffix("=").split("+"))))) for p in train]
    data = examples(lm, rows)
    prompts = [lm.codec.prompt(text) for text in held]
    begun = time.process_time()
    config = SFTConfig(num_epochs=40, batch_size=256, lr=3e-3, save_every=10_000)
    for step, event in enumerate(sft(config, actor=actor, data=data, seed=seed)):
        del event
        if step % 20 == 19 and accuracy(actor, prompts, right, SAMPLING) >= START:
            break
    return lm, backbone, actor, time.process_time() - begun


def loop(
    name: str, actor: LocalActor, backbone, prompts, judge: RuleJudge, seed: int
) -> Iterator[Event]:
    """Each algorithm with 64 prompts × 8 answers a step."""
    common = {"num_steps": MOST_STEPS, "prompts_per_step": 64, "answers_per_prompt": 8}
    common |= {"lr": LR, "num_minibatches": 4}
    given = {"actor": actor, "prompts": prompts, "sampling": SAMPLING, "seed": seed}
    if name == "grpo":
        config = GRPOConfig(**common)
        return grpo(config, judge=judge, **given)
    if name == "rloo":
        config = RLOOConfig(**common, kl_coef=0.0)
        return rloo(config, judge=judge, **given)
    config = PPOConfig(
        **common, critic_lr=1e-3, kl_coef=0.0, kl_target=None, missing_eos_penalty=0.0, critic_steps=5, lam=1.0,
    )  # fmt: skip
    critic, reference = LocalCritic(backbone), LocalReference(backbone)
    reward = ScoredReward(judge)
    return ppo(config, critic=critic, reference=reference, reward=reward, **given)


def learned(name: str, seed: int, abstain: float) -> tuple[float, float, float, int, float]:
    """Accuracy before and after, seconds, steps, and seconds of the first stage."""
    lm, backbone, actor, warm = warmed(seed)
    train, held = sums(seed)
    prompts, judged = ([lm.codec.prompt(text) for text in some] for some in (train, held))
    before = accuracy(actor, judged, right, SAMPLING)
    judge = RuleJudge(right, abstain=abstain)
    begun, after, steps = time.process_time(), before, 0
    for event in loop(name, actor, backbone, prompts, judge, seed):
        if type(event).__name__ == "Step":
            steps = event.step
            if steps % 20 == 0:
                after = accuracy(actor, judged, right, SAMPLING)
                if after >= GOAL + 0.01:
                    break
    return before, after, time.process_time() - begun, steps, warm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="grpo,rloo,ppo")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--abstain", type=float, default=0.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "# Two-digit addition from right and wrong",
        "",
        f"{description()}. {100 * chosen.abstain:.0f} % of the judgements withheld.",
        "",
        "| algorithm | seed | accuracy before | after | steps | processor s | first stage, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in chosen.only.split(","):
        for seed in range(chosen.seeds):
            before, after, seconds, steps, warm = learned(name, seed, chosen.abstain)
            cells = (
                name,
                seed,
                f"{before:.2f}",
                f"{after:.3f}",
                steps,
                f"{seconds:.0f}",
                f"{warm:.0f}",
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
            print(lines[-1], flush=True)
    lines += ["", "How it is measured: `benchmarks/addition.py`.", ""]
    write_text(chosen.out, "\n".join(lines))


if __name__ == "__main__":
    main()

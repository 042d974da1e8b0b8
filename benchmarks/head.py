"""Log-probabilities over a large vocabulary and their gradients: ours, full logits, torch's own.

    python benchmarks/head.py [--only small|large] [--head frozen|trained] [--repeats R] [--tokens N] [--threads T]

The loss is PPO's clipped surrogate of the drawn tokens' log-probabilities; the head is frozen (as
below a shared trunk) or trained. Three ways take turns:

- ours: `plaudit.ops.token_logprobs`.
- full logits: F.linear, log_softmax, gather, and autograd.
- torch's: F.linear_cross_entropy without reduction, told to work in pieces of 64 tokens.

Memory is the highest resident size during one update less the resident size before it, each in a
process of its own; the gradients themselves, which every way must return, are part of it and told.
Gradients of a weighted sum of the log-probabilities are compared with float64. The floor is the products that any way needs (logits and the
gradient of hidden states; with a trained head that of the weights too), at the rates that they
reach alone in this run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from floors import forward_seconds, input_gradient_seconds, weight_gradient_seconds
from machine import clock, description
from plaudit import ops
from plaudit.engine.memory import give_back_memory, keep_freed_memory
from plaudit.records.files import write_text

RESULTS = Path(__file__).parent / "results" / "head.md"

SHAPES = {"small": (49_152, 576), "large": (151_936, 896)}
"""Words and width of SmolLM2-135M's head and of Qwen2.5-0.5B's."""

TORCH_PIECE = 64
"""Tokens that torch's way takes at once; its own choice was 7 times as slow as full logits."""

LOGIT_SPREAD = 2.0
"""Standard deviation of the logits, near that of a trained model."""


Logprobs = Callable[[Tensor, Tensor, Tensor], Tensor]
Loss = Callable[["Case", Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A head, its inputs, and what a PPO step knows of them."""

    hidden: Tensor
    weight: Tensor
    token: Tensor
    logp_old: Tensor
    adv: Tensor

    def learn(self, logprobs: Logprobs, loss: Loss, *, trained: bool) -> None:
        """Leaves the gradients in `hidden.grad` and, if the head is trained, `weight.grad`."""
        self.hidden.grad = self.weight.grad = None
        self.hidden.requires_grad_(True)
        self.weight.requires_grad_(trained)
        loss(self, logprobs(self.hidden, self.weight, self.token)).backward()


def clipped(case: Case, logp: Tensor) -> Tensor:
    """PPO's loss: what is timed."""
    return ops.clipped_surrogate(logp, case.logp_old, case.adv, clip_low=0.2, clip_high=0.2).mean()


def sloped(case: Case, logp: Tensor) -> Tensor:
    """A weighted sum: what is compared with float64. PPO's ratio is exp(logp − logp_old), so that
    the rounding of logp to float32, near 1e-6 of the ratio, would hide the head's own errors."""
    return logp @ case.adv.to(logp)


@torch.no_grad()
def make(shape: str, num: int, dtype: torch.dtype = torch.float32) -> Case:
    """Tokens drawn from the softmax, as a sampler draws them; old log-probabilities a step away."""
    vocabulary, width = SHAPES[shape]
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(num, width, generator=g)
    weight = torch.randn(vocabulary, width, generator=g) * (LOGIT_SPREAD / width**0.5)
    token, logp = torch.empty(num, dtype=torch.long), torch.empty(num)
    for begin in range(0, num, 64):  # no more than that at once: memory is measured afterwards
        here = slice(begin, begin + 64)
        each = F.linear(hidden[here], weight).log_softmax(-1)
        token[here] = each.exp().multinomial(1, generator=g)[:, 0]
        logp[here] = each.gather(-1, token[here, None])[:, 0]
    logp_old = logp + 0.1 * torch.randn(num, generator=g)
    adv = torch.randn(num, generator=g)
    return Case(hidden.to(dtype), weight.to(dtype), token, logp_old, adv)


def ours(hidden: Tensor, weight: Tensor, token: Tensor) -> Tensor:
    return ops.token_logprobs(hidden, weight, token)[0]


def full(hidden: Tensor, weight: Tensor, token: Tensor) -> Tensor:
    return F.linear(hidden, weight).log_softmax(-1).gather(-1, token[:, None]).squeeze(-1)


def torchs(hidden: Tensor, weight: Tensor, token: Tensor) -> Tensor:
    pieces = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=TORCH_PIECE)
    return -F.linear_cross_entropy(hidden, weight, token, reduction="none", options=pieces)


WAYS: dict[str, Logprobs] = {
    "ours": ours,
    "full logits": full,
    "torch's linear_cross_entropy": torchs,
}


def resident(field: str) -> int:
    """Bytes: VmRSS, now, or VmHWM, the most since it was reset."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(s.split()[1] for s in lines if s.startswith(field)))


def peak_bytes(shape: str, num: int, way: str, trained: bool) -> int:
    """Run in a process of its own: the most that one update adds to what is resident."""
    keep_freed_memory()
    tiny = Case(torch.randn(8, 64), torch.randn(99, 64), torch.arange(8), *torch.randn(2, 8))
    tiny.learn(WAYS[way], clipped, trained=trained)  # loads what is loaded at the first use
    case = make(shape, num)
    give_back_memory()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    case.learn(WAYS[way], clipped, trained=trained)
    return resident("VmHWM") - before


def peak_apart(shape: str, chosen: argparse.Namespace, way: str, trained: bool) -> int:
    command = [sys.executable, __file__, "--peak", shape, way, str(int(trained))]
    command += ["--tokens", str(chosen.tokens), "--threads", str(chosen.threads)]
    return int(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def errors(case: Case, exact: list[Tensor], way: str, trained: bool) -> list[float]:
    """Largest difference of each gradient from float64's, as a share of its largest entry."""
    case.learn(WAYS[way], sloped, trained=trained)
    found = [x.grad for x in (case.hidden, case.weight) if x.grad is not None]
    return [
        float((got - want).abs().max() / want.abs().max())
        for got, want in zip(found, exact, strict=False)
    ]


def floor_seconds(case: Case, trained: bool) -> float:
    of: tuple[list[Tensor], int] = ([case.weight.detach()], len(case.hidden))
    seconds = forward_seconds(*of, repeats=1) + input_gradient_seconds(*of, repeats=1)
    return seconds + (weight_gradient_seconds(*of, repeats=1) if trained else 0.0)


def measure(shape: str, chosen: argparse.Namespace) -> list[str]:
    """The rows of one head."""
    case, wide = make(shape, chosen.tokens), make(shape, chosen.tokens, torch.float64)
    wide.learn(full, sloped, trained=True)
    exact = [x.grad for x in (wide.hidden, wide.weight) if x.grad is not None]
    del wide
    lines = []
    for trained in (False, True):
        if chosen.head not in (None, "trained" if trained else "frozen"):
            continue
        worst = {way: errors(case, exact, way, trained) for way in WAYS}  # and warms each
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(chosen.repeats):
            for way in WAYS:
                begin = clock()
                case.learn(WAYS[way], clipped, trained=trained)
                seconds[way].append(clock() - begin)
        floor = floor_seconds(case, trained)
        median = {way: statistics.median(s) for way, s in seconds.items()}
        peak = {way: peak_apart(shape, chosen, way, trained) for way in WAYS}
        own = 4 * (case.hidden.numel() + trained * case.weight.numel())
        for way in WAYS:
            spread = (max(seconds[way]) - min(seconds[way])) / median[way]
            cells = (
                f"{SHAPES[shape][0]:,} × {SHAPES[shape][1]}",
                "trained" if trained else "frozen",
                way,
                f"{median[way]:.2f} ({100 * spread:.0f} %)",
                f"{median[way] / median['full logits']:.2f}",
                f"{median[way] / floor:.2f}",
                f"{peak[way] / 1e6:,.0f}",
                f"{own / 1e6:,.0f}",
                f"{peak['full logits'] / peak[way]:.1f}",
                ", ".join(f"{e:.1e}" for e in worst[way]),
            )
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return lines


HEADS = (
    "words × width",
    "head",
    "way",
    "seconds (spread)",
    "time / full logits'",
    "time / floor",
    "peak, MB",
    "of which gradients",
    "full logits' peak / peak",
    "gradients' difference from float64 (hidden, weight)",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--only", choices=sorted(SHAPES))
    parser.add_argument("--head", choices=("frozen", "trained"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--peak", nargs=3, metavar=("SHAPE", "WAY", "TRAINED"), help=argparse.SUPPRESS
    )
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.peak:
        shape, way, trained = chosen.peak
        print(json.dumps(peak_bytes(shape, chosen.tokens, way, bool(int(trained)))))
        return
    keep_freed_memory()  # as in training, for every way
    unit = "processor seconds" if chosen.threads == 1 else "seconds of wall-clock time"
    lines = [
        "# The language model's head: log-probabilities and gradients of a PPO update",
        "",
        f"{description()}. Float32, {chosen.tokens} tokens, medians of {chosen.repeats} updates "
        f"in turn, in {unit}. Differences are shares of the gradient's largest entry.",
        "",
        f"| {' | '.join(HEADS)} |",
        f"|{'---|' * len(HEADS)}",
    ]
    for shape in SHAPES:
        if chosen.only in (None, shape):
            lines += measure(shape, chosen)
    lines += ["", "How it is measured: `benchmarks/head.py`.", ""]
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(chosen.out, "\n".join(lines))


if __name__ == "__main__":
    main()

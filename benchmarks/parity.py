"""First losses and gradients beside TRL's: same random Llama, same token rows, no step taken.

    python benchmarks/parity.py [--env trl=/path/to/python] [--only NAME] [--threads N]

TRL's side builds its own trainers and calls their data preparation and losses; ours is the engine's
`accumulate`, with the losses and the advantages that the algorithms use. Weights are
float64 on both sides; what the peer's and transformers' code computes in float32 (norms, the head's
log-probabilities) stays so, and is what equal rows differ by.
The reference's weights are others than the policy's, so that no log-ratio is 0; off policy, the old
log-probabilities are the policy's with noise of 0.3 a token. Ours is always cut into micro-batches
of 64 places, TRL's where a row says so.
Ends with 1 where a row that should agree does not, or one that should differ agrees.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lm import RUNS, Side, SideOf, environment
from machine import description
from parity_known import KNOWN
from parity_rows import EOS, PAD, VOCABULARY, Row, rows, task
from plaudit.records.files import write_text

RESULTS = Path(__file__).parent / "results" / "parity.md"
TOLERANCE = 1e-5
"""Of relative differences. A loss that is 0 but for rounding, as where the advantages of a group add
up to 0, is compared relative to its gradient's norm."""

WIDTH = 32


def folders() -> dict[str, str]:
    """The policy's and the reference's folder: a Llama of two layers, and one near to it."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        eos_token_id=EOS, pad_token_id=PAD, bos_token_id=EOS, initializer_range=0.12,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).double()
    words = {"<end>": EOS, "<pad>": PAD} | {f"t{i}": i for i in range(2, VOCABULARY)}
    core = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<end>", pad_token="<pad>", unk_token="<end>"
    )
    found = {}
    for name in ("reference", "policy"):
        folder = RUNS / f"parity-{name}"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[name] = str(folder)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.03 * torch.randn_like(weight))
    return found


class Gap:
    """What two answers differ by, relative to their size."""

    def __init__(self, ours: dict[str, Any], trl: dict[str, Any], files: Sequence[Path]) -> None:
        mine, theirs = (load_file(file) for file in files)
        if mine.keys() != theirs.keys():
            raise SystemExit(f"other weights have gradients: {sorted(mine.keys() ^ theirs.keys())}")
        norm = float(ours["grad_norm"])
        size = max(abs(ours["loss"]), abs(trl["loss"]))
        if size < TOLERANCE * norm:
            size = norm
        self.loss = abs(ours["loss"] - trl["loss"]) / size
        self.norm = abs(norm - float(trl["grad_norm"])) / norm
        apart = sum(float(((mine[n] - theirs[n]) ** 2).sum()) for n in mine)
        self.gradient = apart**0.5 / norm

    @property
    def found(self) -> str:
        """The verdict."""
        if max(self.norm, self.gradient) > TOLERANCE:
            return "differs"
        return "equal" if self.loss <= TOLERANCE else "gradient"


def compare(row: Row, sides: Sequence[Side], old: list[list[float]]) -> tuple[list[str], bool]:
    """The row's cells, and whether it is as expected."""
    files = [RUNS / f"parity-{name}.safetensors" for name in ("ours", "trl")]
    also = {"old": old} if row.off_policy else {}
    ours, trl = (
        side.ask("gradient", kind=row.kind, told={**told, **also}, out=str(file))
        for side, told, file in zip(sides, (row.ours, row.trl), files, strict=True)
    )
    gap = Gap(ours, trl, files)
    fine = gap.found == row.expected
    policy = ", off policy" if row.off_policy else ""
    return [
        row.name + policy,
        row.ours_says,
        row.trl_says,
        f"{ours['loss']:.7g}",
        f"{trl['loss']:.7g}",
        *(f"{x:.0e}" for x in (gap.loss, gap.norm, gap.gradient)),
        gap.found if fine else f"**{gap.found}, expected {row.expected}**",
    ], fine


HEADS = [
    "method", "ours", "TRL", "loss, ours", "loss, TRL", "of the loss", "of the norm",
    "of the gradient", "verdict",
]  # fmt: skip


def table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return [*lines, *(f"| {' | '.join(line)} |" for line in cells)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="", metavar="trl=PYTHON")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    peer, _, python = chosen.env.partition("=")
    if chosen.env and (peer != "trl" or not python):
        parser.error(f"--env names no Python of trl: {chosen.env!r}")
    wanted = [row for row in rows() if chosen.only in row.name]
    if not wanted:
        parser.error(f"no row's name contains {chosen.only!r}")
    RUNS.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(WIDTH, generator=generator, dtype=torch.float64) * WIDTH**-0.5
    told = {**task(), **folders(), "head": head.tolist(), "threads": chosen.threads}
    sides = [
        Side(SideOf("ours", "", "parity_ours", {}), sys.executable, told),
        Side(SideOf("TRL", "trl", "parity_trl", {}), python or environment("trl"), told),
    ]
    logp = torch.tensor(sides[0].ask("logp")["logp"], dtype=torch.float64)
    noise = torch.randn(logp.shape, generator=generator, dtype=torch.float64)
    old = (logp + 0.3 * noise * (logp != 0.0)).tolist()
    cells, wrong = [], []
    for row in wanted:
        line, fine = compare(row, sides, old)
        print(" | ".join(line), flush=True)
        cells.append(line)
        wrong += [] if fine else [line[0]]
    versions = ", ".join(f"{k} {v}" for k, v in sides[1].facts["versions"].items())
    for side in sides:
        side.close()
    lines = [
        "# Losses and gradients beside TRL's",
        "",
        f"How it is compared: `benchmarks/parity.py`. {description()}; peer: {versions}. Weights in float64; "
        "the first loss and its gradient over all weights. Differences are relative: of the loss, "
        "of the gradient's norm, and the norm of the gradients' difference. `equal`: all three are "
        f"at most {TOLERANCE:.0e}; `gradient`: the last two; `differs`: see below.",
        "",
        *table(HEADS, cells),
        "",
        "## Known differences",
        "",
        *table(["what", "ours", "TRL", "who is right"], KNOWN),
    ]
    if not chosen.only:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        write_text(chosen.out, "\n".join([*lines, ""]))
    print("\n".join(lines), flush=True)
    if wrong:
        raise SystemExit(f"not as expected: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()

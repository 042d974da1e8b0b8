"""Which families of models Plaudit trains rightly: the whole zoo, and the page that tells of it.

    python benchmarks/families.py [NAME ...] [--out FILE]

Every shape of `tests/model_zoo.py` goes through the whole RLHF job twice, with its top two layers
trained and with all four, and `tests/family_job.py` compares every number with plain
`transformers`. Writes docs/models.md, or FILE; with names only those shapes are judged, and
nothing is written without FILE. Ends with 1 where a number is wrong. Takes about ten minutes.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "models.md"
sys.path.insert(0, str(ROOT / "tests"))

from family_job import BOUNDS, Verdict, judged  # noqa: E402
from model_zoo import LAYERS, SHAPES  # noqa: E402

TOP = 2
GROUPS: dict[str, tuple[str, ...]] = {
    "log-probabilities": ("sampler", "sampler after", "trainer", "reference", "first ratio"),
    "KL": ("first KL", "KL"),
    "perplexity": ("perplexity",),
    "gradient": ("gradient",),
    "scores": tuple(name for name in BOUNDS if "score" in name),
}
"""The page's columns; each holds the largest of its differences."""

_MODEL_CLASS = re.compile(r"\b\w+(ForCausalLM|LMHeadModel)\b")
"""Without it one sentence serves every family that it is said of."""

INTRODUCTION = """\
# Models

Plaudit trains causal language models of `transformers`. A family that is not trained rightly is
refused with a sentence before anything is drawn. Which is which is found by running, never by a
list of names.

Each row below is a tiny model of a family, with random weights, in which what is peculiar to the
family moves the numbers. It went through the whole job (answers, feedback, reward model, PPO,
answers again) twice: with its top two layers trained, and with all four. Prompts and answers are
longer than every window. Then plain `transformers` opened the folders that the job read and wrote,
read every text in a row of its own, and every number was compared:

- the log-probabilities that the sampler kept, those that the trainer computes, and those of the
  frozen reference after training, which must be the starting model's;
- the KL of the first step, which must be 0, the ratios of the first minibatch, which must be 1,
  and the KL of the report;
- the policy's gradient with respect to every tensor that is trained;
- the report's perplexity, at temperature 1 under the starting model;
- the scores that PPO climbed, against the saved classifier, alone and padded at either side.

*packed* means that a prompt shared by several answers is computed once; *plain* that each answer
has a row of its own under the model's own masks. Figures are the largest differences over both
runs: nats of a token; KL and perplexity as shares of the number (the KL of the first step in nats);
the gradient's turn in radians; scores in their own unit.

The page is what `make bench NAME=families` wrote. `make test-all` runs the same judge on every row,
`make test` on a dozen.
"""


def judge_all(names: Iterable[str]) -> list[Verdict]:
    """Both verdicts on each shape, said as they come."""
    verdicts = []
    for name in names:
        for layers in (TOP, LAYERS):
            with tempfile.TemporaryDirectory() as folder:
                verdict = judged(name, Path(folder), layers=layers)
            verdicts.append(verdict)
            faults = "; ".join(verdict.faults) or verdict.said or "right"
            print(f"{name:20} {layers} layers  {verdict.outcome:8} {faults}", flush=True)
    return verdicts


def page(verdicts: Sequence[Verdict]) -> str:
    """docs/models.md."""
    reasons: list[str] = []
    lines = [
        f"| family | peculiar | top {TOP} | all {LAYERS} | {' | '.join(GROUPS)} |",
        f"|---|---|---|---|{'--:|' * len(GROUPS)}",
    ]
    for name in dict.fromkeys(verdict.shape for verdict in verdicts):
        both = [verdict for verdict in verdicts if verdict.shape == name]
        shape = SHAPES[name]
        cells = [f"{shape.family} (`{name}`)", shape.peculiar]
        cells += [_how(verdict, reasons) for verdict in both]
        cells += [_largest(both, group) for group in GROUPS.values()]
        lines.append(f"| {' | '.join(cells)} |")
    told = [f"{i}. {reason}" for i, reason in enumerate(reasons, 1)]
    parts = [INTRODUCTION, "\n".join(lines) + "\n"]
    if told:
        parts.append("Refused, or wrong, because:\n\n" + "\n".join(told) + "\n")
    return "\n".join(parts)


def _how(verdict: Verdict, reasons: list[str]) -> str:
    """How the shape is trained, or why it is not, by the number of its reason."""
    if verdict.outcome == "done" and not verdict.faults:
        return verdict.how
    word = "refused" if verdict.outcome == "refused" else "**wrong**"
    said = "; ".join(verdict.faults) or verdict.said.removeprefix("plaudit: ")
    said = _MODEL_CLASS.sub("the model", said)
    if said not in reasons:
        reasons.append(said)
    return f"{word} ({reasons.index(said) + 1})"


def _largest(verdicts: Sequence[Verdict], group: Sequence[str]) -> str:
    found = [v.differences[name] for v in verdicts for name in group if name in v.differences]
    return f"{max(found):.0e}" if found else ""


def main() -> int:
    from transformers.utils import logging

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="shapes; all by default")
    parser.add_argument("--out", type=Path, help="the page; docs/models.md when all are judged")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in SHAPES]
    if unknown:
        parser.error(f"there is no shape {unknown[0]!r}; there are: {', '.join(SHAPES)}")
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    verdicts = judge_all(options.names or SHAPES)
    out = options.out or (None if options.names else PAGE)
    if out is not None:
        out.write_text(page(verdicts), encoding="utf-8")
    wrong = sum(bool(verdict.faults) for verdict in verdicts)
    print(f"{len(verdicts)} jobs, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

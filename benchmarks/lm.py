"""Language-model steps beside peers: same weights, rows, optimiser and threads, sides in turn.

    python benchmarks/lm.py --peer trl,ctranslate2 [--only CASE,...] [--threads N] [--repeats R]
                            [--env trl=/path/to/python]

Every side runs in a process of its own (`benchmarks/sides`), a peer in an environment of its own,
which is made under runs/benchmarks/env-PEER unless `--env` names a Python that has it. Sides load
the same folder of random weights, warm up, and then take one step each in turn; a step's seconds
are wall-clock medians. Memory is the peak of a step less what was resident once the model was
loaded: gradients and moments are in it, the weights are not. All sides learn from the same rows
with the same AdamW, so losses must agree at every step; samplers are asked for log-probabilities of
the same rows instead. The floor is the matrix products that the work cannot do without (each place
once, a shared prompt once, attention by its causal half; for decoding also reading the cache), at
the rate that the same products reach alone in the same run.
A case that was run replaces its section of the results; the other sections stay.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import description
from plaudit.records.files import write_text
from sampler import SHAPES, make

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "lm.md"
RUNS = ROOT.parent / "runs" / "benchmarks"
SIDES = ROOT / "sides"

NEEDS = {
    "trl": ("torch==2.13.0", "trl==1.16.0", "liger-kernel==0.8.5"),
    # CTranslate2 itself needs none of torch; its converter of folders does.
    "ctranslate2": ("torch==2.13.0", "transformers==5.23.0", "ctranslate2==4.8.5"),
}
"""What a peer's environment holds; transformers of a version that the peer takes."""

LR = 1e-4
LOSS_TOLERANCE = 1e-4
"""Losses of float32 sides at one step may differ by so much, relative to their size."""

OWN_ROWS = ("grpo", "rloo", "kto")
"""Kinds whose sides learn from answers that each draws, or behind prompts that each chooses: their
losses are not compared here but, on the same rows, in `parity.py`."""

Task = dict[str, Any]


@dataclass(frozen=True)
class SideOf:
    """A side of a case: who runs it, which file, and what it is told besides the task."""

    name: str
    peer: str
    script: str
    also: Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """One kind of work on one shape of model."""

    title: str
    shape: str
    kind: str
    task: Callable[[int], Task]
    peers: tuple[SideOf, ...]


def sft_rows(vocabulary: int) -> Task:
    """16 rows of 16 to 200 tokens, a quarter of each its prompt."""
    draw = random.Random(0)
    lengths = [draw.randint(16, 200) for _ in range(16)]
    return {
        "prompts": [_ids(draw, n // 4, vocabulary) for n in lengths],
        "answers": [_ids(draw, n - n // 4, vocabulary) for n in lengths],
    }


def reward_rows(vocabulary: int) -> Task:
    """8 pairs of answers of 8 to 150 tokens to prompts of 8 to 50, and the head to begin from."""
    draw = random.Random(1)
    width = next(s["hidden_size"] for s in SHAPES.values() if s["vocab_size"] == vocabulary)
    return {
        "prompts": [_ids(draw, draw.randint(8, 50), vocabulary) for _ in range(8)],
        "chosen": [_ids(draw, draw.randint(8, 150), vocabulary) for _ in range(8)],
        "rejected": [_ids(draw, draw.randint(8, 150), vocabulary) for _ in range(8)],
        "head": [draw.gauss(0.0, width**-0.5) for _ in range(width)],
    }


def pair_rows(vocabulary: int) -> Task:
    """16 pairs of answers of 8 to 200 tokens, each ended, to prompts of 8 to 50."""
    draw = random.Random(3)
    return {
        "prompts": [_ids(draw, draw.randint(8, 50), vocabulary) for _ in range(16)],
        "chosen": [[*_ids(draw, draw.randint(8, 200), vocabulary), 0] for _ in range(16)],
        "rejected": [[*_ids(draw, draw.randint(8, 200), vocabulary), 0] for _ in range(16)],
    }


def label_rows(vocabulary: int) -> Task:
    """16 answers of 8 to 200 tokens, each ended, to prompts of 8 to 50; every other one is good."""
    draw = random.Random(4)
    return {
        "prompts": [_ids(draw, draw.randint(8, 50), vocabulary) for _ in range(16)],
        "answers": [[*_ids(draw, draw.randint(8, 200), vocabulary), 0] for _ in range(16)],
        "is_good": [i % 2 == 0 for i in range(16)],
    }


def group_rows(vocabulary: int) -> Task:
    """8 prompts of 48 tokens, 8 answers of 128 new ones to each."""
    draw = random.Random(5)
    return {
        "prompts": [_ids(draw, 48, vocabulary) for _ in range(8)],
        "answers_per_prompt": 8,
        "new_tokens": 128,
    }


def decode_rows(num_rows: int) -> Callable[[int], Task]:
    """Different prompts of 48 tokens, 32 new ones each."""

    def rows(vocabulary: int) -> Task:
        draw = random.Random(2)
        return {
            "prompts": [_ids(draw, 48, vocabulary) for _ in range(num_rows)],
            "new_tokens": 32,
        }

    return rows


def _ids(draw: random.Random, count: int, vocabulary: int) -> list[int]:
    """Any token but the one that ends and pads."""
    return [draw.randrange(1, vocabulary) for _ in range(count)]


_TRL = (SideOf("TRL", "trl", "trl_side", {}),)
_FUSED = SideOf("TRL, fused head", "trl", "trl_side", {"fused": True})
_SAMPLERS = (
    SideOf("`transformers.generate`", "", "generate_side", {}),
    SideOf("CTranslate2 float32", "ctranslate2", "ctranslate2_side", {"precision": "float32"}),
    SideOf("CTranslate2 int8", "ctranslate2", "ctranslate2_side", {"precision": "int8"}),
)
_OURS = SideOf("ours", "", "ours", {})

CASES = {
    "sft-small": Case("SFT step, 16 rows, 6M Llama", "small", "sft", sft_rows, _TRL),
    "sft-smollm2": Case("SFT step, 16 rows, SmolLM2's shape", "smollm2", "sft", sft_rows, _TRL),
    "reward-small": Case(
        "Reward-model step, 8 pairs, 6M Llama", "small", "reward", reward_rows, _TRL
    ),
    "reward-smollm2": Case(
        "Reward-model step, 8 pairs, SmolLM2's shape", "smollm2", "reward", reward_rows, _TRL
    ),
    "dpo-small": Case("DPO step, 16 pairs, 6M Llama", "small", "dpo", pair_rows, (*_TRL, _FUSED)),
    "kto-small": Case("KTO step, 16 answers, 6M Llama", "small", "kto", label_rows, _TRL),
    "grpo-small": Case(
        "GRPO step, 8 × 8 answers of 128 tokens, 6M Llama",
        "small",
        "grpo",
        group_rows,
        (*_TRL, _FUSED),
    ),
    "rloo-small": Case(
        "RLOO step, 8 × 8 answers of 128 tokens, 6M Llama", "small", "rloo", group_rows, _TRL
    ),
    "decode-16": Case(
        "Decoding 16 rows, SmolLM2's shape", "smollm2", "decode", decode_rows(16), _SAMPLERS
    ),
    "decode-64": Case(
        "Decoding 64 rows, SmolLM2's shape", "smollm2", "decode", decode_rows(64), _SAMPLERS
    ),
}


class Side:
    """A process that waits for orders; see `sides/serve.py`."""

    def __init__(self, side: SideOf, python: str, task: Task) -> None:
        self.name = side.name
        threads = str(task["threads"])
        env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        env |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        if side.peer:
            env.pop("PYTHONPATH", None)  # a peer sees its own environment and nothing of ours
        RUNS.mkdir(parents=True, exist_ok=True)
        self.log = RUNS / f"{side.script}.log"
        with self.log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [python, str(SIDES / f"{side.script}.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=env,
            )
        self.facts = self._said({**task, **side.also})
        self.steps: list[dict[str, Any]] = []

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """The answer to one order."""
        return self._said({"do": do, **order})

    def _said(self, message: Task) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended: what it last wrote is told below
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended; the last that it wrote:\n{_tail(self.log)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """No more orders; wait until it has ended."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def median(self, name: str) -> float:
        """Of its steps, the first (a warm-up) left out."""
        return statistics.median(step[name] for step in self.steps[1:])

    @property
    def spread(self) -> float:
        """Range of its seconds over their median."""
        seconds = [step["seconds"] for step in self.steps[1:]]
        return (max(seconds) - min(seconds)) / statistics.median(seconds)


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8").splitlines()[-12:])


def environment(peer: str) -> str:
    """The Python of the peer's own environment, made and filled if it is not there."""
    folder = RUNS / f"env-{peer}"
    python = folder / "bin" / "python"
    filled = folder / "filled"
    if not filled.exists():
        print(f"making {folder} with {', '.join(NEEDS[peer])}", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *NEEDS[peer]], check=True)
        filled.write_text("\n".join(NEEDS[peer]), encoding="utf-8")
    return str(python)


def model_folder(shape: str) -> Path:
    """A Hugging Face folder of random weights, with a tokenizer of one word for every id."""
    folder = RUNS / f"lm-{shape}"
    if (folder / "tokenizer.json").exists():
        return folder
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model = make(shape)
    model.config.eos_token_id = model.config.pad_token_id = 0
    model.generation_config.eos_token_id = None  # answers have their full length
    model.save_pretrained(folder)
    words = {"<end>": 0} | {f"t{i}": i for i in range(1, SHAPES[shape]["vocab_size"])}
    core = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    # CTranslate2 asks for a word of each kind, and adds none.
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<end>")
    PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(folder)
    return folder


def measure(case: Case, pythons: Mapping[str, str], *, threads: int, repeats: int) -> list[str]:
    """The case's section."""
    task = case.task(SHAPES[case.shape]["vocab_size"])
    told = {**task, "case": case.kind, "threads": threads, "lr": LR}
    told["folder"] = str(model_folder(case.shape))
    chosen = [side for side in case.peers if not side.peer or side.peer in pythons]
    sides = [Side(s, pythons.get(s.peer, sys.executable), told) for s in (_OURS, *chosen)]
    ours = sides[0]
    floors = [ours.ask("floor")]
    for number in range(repeats + 1):
        for side in sides:
            order = {"seed": number} if case.kind == "decode" else {}
            side.steps.append(side.ask("step", **order))
        print({s.name: f"{s.steps[-1]['seconds']:.2f} s" for s in sides}, flush=True)
    floors.append(ours.ask("floor"))
    floor = min(found["floor"] for found in floors)
    gaps = {}
    if case.kind == "decode":
        gaps = _score_gaps(sides, task)
    elif case.kind not in OWN_ROWS:
        gaps = _loss_gaps(sides)
    lines = table(sides, gaps, floor, what="log-probability" if case.kind == "decode" else "loss")
    for side in sides:
        side.close()
    versions = {k: v for side in sides[1:] for k, v in side.facts["versions"].items()}
    rate = floors[0].get("rate")
    return [
        f"## {case.title}",
        "",
        f"{description()}; the sides run on {threads} thread(s). Peers: "
        f"{', '.join(f'{k} {v}' for k, v in versions.items())}. Float32 but where a row says "
        f"otherwise; medians of {repeats} steps each, in turn. Floor {floor:.3f} s"
        + (
            f" (products of {floors[0]['places']} places at {rate / 1e9:.0f} GFLOP/s)."
            if rate
            else "."
        ),
        "",
        *lines,
    ]


def _loss_gaps(sides: list[Side]) -> dict[str, float]:
    """Largest difference from our loss over all steps, relative to it; ends the run if too large."""
    ours = [step["loss"] for step in sides[0].steps]
    gaps = {}
    for side in sides[1:]:
        theirs = [step["loss"] for step in side.steps]
        gaps[side.name] = max(abs(x - y) / abs(x) for x, y in zip(ours, theirs, strict=True))
        if gaps[side.name] > LOSS_TOLERANCE:
            raise SystemExit(f"losses differ: {ours} here, {theirs} of {side.name}")
    return gaps


def _score_gaps(sides: list[Side], task: Task) -> dict[str, float]:
    """Largest difference of a token's log-probability from the model's own forward."""
    rows = task["prompts"][:4]
    own = [x for row in sides[0].ask("score", rows=rows)["logp"] for x in row]
    gaps = {}
    for side in sides[1:]:
        theirs = [x for row in side.ask("score", rows=rows)["logp"] for x in row]
        gaps[side.name] = max(abs(x - y) for x, y in zip(own, theirs, strict=True))
    return gaps


def table(sides: list[Side], gaps: Mapping[str, float], floor: float, *, what: str) -> list[str]:
    """A row for each side."""
    heads = ["side", "seconds (spread)", "time ÷ ours", "time ÷ floor", "memory, MB"]
    heads.append(f"largest difference of {what}")
    if "tokens" in sides[0].steps[0]:
        heads.append("tokens/s")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    ours = sides[0].median("seconds")
    for side in sides:
        seconds = side.median("seconds")
        above = side.median("peak") - side.facts["resident"]
        cells = [
            side.name,
            f"{seconds:.3f} ({100 * side.spread:.0f} %)",
            f"{seconds / ours:.2f}",
            f"{seconds / floor:.2f}",
            f"{above / 1e6:,.0f}",
            f"{gaps[side.name]:.0e}" if side.name in gaps else "",
        ]
        if "tokens" in side.steps[0]:
            cells.append(f"{side.steps[0]['tokens'] / seconds:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def sections(path: Path) -> dict[str, list[str]]:
    """The sections of the results that are there, by title."""
    found: dict[str, list[str]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        if line.startswith("## "):
            found[line[3:]] = []
        if found:
            found[list(found)[-1]].append(line)
    return {title: "\n".join(of).strip().splitlines() for title, of in found.items()}


def write(path: Path, found: Mapping[str, list[str]]) -> None:
    """The results, in the order of `CASES`."""
    lines = [
        "# Language-model steps beside peers",
        "",
        "How it is measured: `benchmarks/lm.py`. Memory: the peak of a step less what was resident "
        "once the model was loaded. Differences of losses are relative, the largest of all steps.",
    ]
    for case in CASES.values():
        if case.title in found:
            lines += ["", *found[case.title]]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join([*lines, ""]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default="", help=f"any of {', '.join(NEEDS)}, with commas")
    parser.add_argument("--env", action="append", default=[], metavar="PEER=PYTHON")
    parser.add_argument("--only", default=",".join(CASES), help="cases, with commas")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    named = dict(pair.split("=", 1) for pair in chosen.env)
    peers = [p for p in chosen.peer.split(",") if p]
    wanted = chosen.only.split(",")
    for kind, known, given in (("peer", NEEDS, [*peers, *named]), ("case", CASES, wanted)):
        for name in given:
            if name not in known:
                parser.error(f"there is no {kind} {name!r}; there are {', '.join(known)}")
    pythons = {p: named.get(p) or environment(p) for p in dict.fromkeys([*peers, *named])}
    for name in wanted:
        lines = measure(CASES[name], pythons, threads=chosen.threads, repeats=chosen.repeats)
        print("\n".join(lines), flush=True)
        write(chosen.out, {**sections(chosen.out), CASES[name].title: lines})


if __name__ == "__main__":
    main()

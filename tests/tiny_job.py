"""A folder with all that the whole job needs, tiny, and the command line in this process.

folder = tiny_job(tmp_path)                      # model/, prompts.jsonl, reward.py, ...
done = run_command("run", "rlhf", *FLAGS, "--name", "one")
"""

from __future__ import annotations

import contextlib
import io
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from plaudit.cli.main import main
from tiny_models import tiny_llama

FLAGS = shlex.split("""
    --model model --prompts prompts.jsonl --num-held-out 4 --num-top-layers 2
    --sampling.max-new-tokens 8 --feedback.answers-per-prompt 6 --feedback.pairs-per-prompt 8
    --ppo.num-steps 3 --ppo.prompts-per-step 4 --ppo.save-every 2
""")
"""Flags of a job of about two seconds; the source of feedback is still to be named."""

REWARD = ["--reward", "reward.py:vowels"]

REWARD_FILE = '''\
def vowels(prompts, completions):
    """Share of vowels."""
    return [sum(c in "aeiou" for c in text) / max(len(text), 1) for text in completions]


def on_topic(prompts, completions, topic):
    """Share of letters that are in the row's topic."""
    return [sum(c in t for c in x) / max(len(x), 1) for x, t in zip(completions, topic)]
'''

PRAISE = ("a great and lovely day", "so happy and good", "wonderful")
BLAME = ("an awful and sad day", "so terrible and bad", "horrible")


@dataclass(frozen=True)
class Said:
    """What a command gave: its exit code and both its streams."""

    code: int
    out: str
    err: str


def run_command(*words: str) -> Said:
    """`plaudit` with these words, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:
            code = int(leaving.code or 0)
    return Said(code, out.getvalue(), err.getvalue())


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tiny_job(folder: Path) -> Path:
    """Fills `folder` with a model, prompts, a reward, demonstrations and comparisons."""
    weights = tiny_llama(folder / "model") / "model.safetensors"
    tensors = load_file(weights)
    # Random tied embeddings are too short for any logit to stand out, whatever is learned.
    tensors["model.embed_tokens.weight"] *= 8
    save_file(tensors, weights, metadata={"format": "pt"})
    prompts = [{"prompt": f"Write about cart number {i}."} for i in range(12)]
    write_rows(folder / "prompts.jsonl", prompts)
    (folder / "reward.py").write_text(REWARD_FILE)
    feelings = [*PRAISE, *BLAME]
    wanted = [row | {"completion": text} for row in prompts for text in feelings]
    write_rows(folder / "wanted.jsonl", wanted)
    pairs = [
        row | {"chosen": good, "rejected": bad}
        for row in prompts
        for good, bad in zip(PRAISE, BLAME, strict=True)
    ]
    write_rows(folder / "pairs.jsonl", pairs)
    return folder

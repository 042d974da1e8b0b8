"""Rows for the language-model jobs beside the tiny job's."""

from __future__ import annotations

from pathlib import Path

from tiny_job import BLAME, PRAISE, tiny_job, write_rows

MODEL = ["--model", "model", "--num-top-layers", "2"]

REWARDS = '''\
import asyncio


def vowels(prompts, completions):
    """Share of vowels."""
    return [sum(c in "aeiou" for c in text) / max(len(text), 1) for text in completions]


def brief(completions, **columns):
    return [-len(text) / 100 for text in completions]


def unsure(prompts, completions):
    """Says nothing of every third answer."""
    return [None if i % 3 == 0 else float(len(x)) for i, x in enumerate(completions)]


def silent(completions, prompts):
    return [None for _ in completions]


async def slow(prompt, completion):
    await asyncio.sleep(0.001)
    return float(completion.count("a"))


async def hangs(prompt, completion):
    await asyncio.sleep(60 if "a" in completion else 0)
    return 1.0 * len(completion)


def fails(prompt, completion):
    if "e" in completion:
        raise RuntimeError("the judge is out")
    return float(len(completion))
'''


def lm_folder(folder: Path) -> Path:
    """A tiny model, prompts, and data of every kind."""
    tiny_job(folder)
    (folder / "judges.py").write_text(REWARDS)
    prompts = [f"Write about cart number {i}." for i in range(12)]
    chats = [
        {
            "messages": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": PRAISE[i % 3]},
                {"role": "user", "content": "Again, please."},
                {"role": "assistant", "content": PRAISE[(i + 1) % 3]},
            ]
        }
        for i, text in enumerate(prompts)
    ]
    write_rows(folder / "chats.jsonl", chats)
    labels = [
        {"prompt": text, "completion": said, "label": said in PRAISE}
        for text in prompts
        for said in (*PRAISE, *BLAME)
    ]
    write_rows(folder / "labels.jsonl", labels)
    write_rows(folder / "texts.jsonl", [{"text": f"{text} {PRAISE[0]}."} for text in prompts])
    return folder

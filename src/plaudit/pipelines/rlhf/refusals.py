"""What the RLHF job can refuse before anything is drawn: numbers, files, texts, the model's kind.

Each check is a function of what it looks at. They are made in the first seconds of a run, and are
all that `--check` does before it tells what would be done.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from plaudit.models.formats.load import find_folder, model_files
from plaudit.pipelines.rlhf.opinions import Opinions, held_out_prompts
from plaudit.pipelines.rlhf.sources import Source, at_row
from plaudit.records.config import Config
from plaudit.records.errors import UserError
from plaudit.records.fingerprints import Fingerprint, of_code, of_file, of_files, of_rows
from plaudit.records.rows import Row, Rows
from plaudit.records.turns import answer_after, answer_text, canonical_messages
from plaudit.rewards.functions import reward_file

if TYPE_CHECKING:
    from plaudit.models.text import TextCodec
    from plaudit.pipelines.rlhf.config import RLHFConfig

MIN_COMPARISONS = 20
"""Fewer decided comparisons than this teach a reward model nothing but noise."""

JUDGING_SHARE = 0.2
"""Share of the prompts of given comparisons that judge the reward model and do not teach it."""

NAMED = 5
"""Lines that a sentence names at most."""


def fingerprints(config: RLHFConfig, sources: Mapping[str, Source]) -> dict[str, Fingerprint]:
    """Of all that the job reads: files, the reward's code, the template and the model.

    The template is taken as it is written, not as it renders: some write today's date.
    """
    found = {use: of_rows(source.rows) for use, source in sources.items()}
    file = None if config.reward is None else reward_file(config.reward)
    if file is not None:
        found["reward"] = of_code(file)
    if config.template is not None and Path(config.template).is_file():
        found["template"] = of_file(config.template)
    folder = find_folder(config.model)
    found["model"] = of_files(folder, model_files(folder))
    return found


def check_keys(config: RLHFConfig, source: str) -> None:
    """Keys that exclude each other, whatever the files hold."""
    if source == "reward" and config.reward is None:
        raise UserError("feedback.source is reward, but no reward is named: give --reward")
    if source == "file" and config.feedback.file is None:
        raise UserError("feedback.source is file, but feedback.file names none")
    if source != "file" and config.feedback.file is not None:
        raise UserError(
            f"feedback.source is {source}, so the comparisons of feedback.file, "
            f"{config.feedback.file}, would not be used: leave out one of the two"
        )
    drawn, feedback, improve = config.sampling, config.feedback, config.improve
    greedy = {"temperature": 0, "top_k": 1, "min_p": 1}
    found = [f"{name}={value}" for name, value in greedy.items() if getattr(drawn, name) == value]
    if found:
        raise UserError(
            f"with sampling.{found[0]} all answers to a prompt are equal, so there would be "
            f"nothing to compare, and nothing for {improve.upper()} to prefer: draw from more than "
            "the most likely token"
        )
    if source == "annotators" and feedback.votes_per_pair > feedback.num_annotators:
        raise UserError(
            f"feedback.votes_per_pair is {feedback.votes_per_pair}, but there are only "
            f"{feedback.num_annotators} annotators (feedback.num_annotators), of whom each votes "
            "on a pair once"
        )
    keys = improver_keys(config)
    if config.sampler_precision != "float32" and getattr(keys, "importance_cap", None) is None:
        raise UserError(
            f"with sampler_precision={config.sampler_precision} answers are drawn from a rounded "
            f"policy, for which {improve.upper()} must correct: give {improve}.importance_cap (2 is "
            "usual)"
        )
    minibatches, prompts = (getattr(keys, n, 0) for n in ("num_minibatches", "prompts_per_step"))
    if minibatches > prompts > 0:
        raise UserError(
            f"{improve}.num_minibatches is {minibatches}, but a step has only {prompts} prompts "
            f"({improve}.prompts_per_step), which are not split"
        )


def improver_keys(config: RLHFConfig) -> Config:
    """The keys of the chosen way of improving, which stand under its name."""
    keys: Config = getattr(config, config.improve)
    return keys


USED_BY: Mapping[str, tuple[str, ...]] = {
    "votes_per_pair": ("annotators",),
    "num_annotators": ("annotators",),
    "tie_threshold": ("annotators",),
    "pairs_per_prompt": ("annotators", "reward", "people"),
    "votes_wanted": ("people",),
    "wait_seconds": ("people",),
}
"""Keys of `feedback` that only some sources use."""


def said_of_unused(config: RLHFConfig, source: str) -> list[str]:
    """What to know where keys differ from their defaults and nothing will use them."""
    unused = [
        (f"feedback.{key}", f"comparisons come from feedback.source={source}")
        for key in _changed(config.feedback)
        if source not in USED_BY.get(key, (source,))
    ]
    if config.demonstrations is None:
        why = "there are no demonstrations to fine-tune on"
        unused += [(f"sft.{key}", why) for key in _changed(config.sft)]
    improve, keys = config.improve, improver_keys(config)
    if getattr(keys, "kl_target", 0) is None and "kl_horizon" in _changed(keys):
        why = f"{improve}.kl_target is none, which keeps kl_coef fixed"
        unused.append((f"{improve}.kl_horizon", why))
    for other in get_args(type(config).model_fields["improve"].annotation):
        if other != improve:
            begins = type(config).model_fields[other].get_default()
            changed = _changed(getattr(config, other), begins)
            unused += [(f"{other}.{key}", f"improve is {improve}") for key in changed]
    return [f"Note: {key} is not used, as {why}" for key, why in unused]


def _changed(config: Config, begins: Config | None = None) -> list[str]:
    """Keys whose values are not the defaults, or not those of the config that the job begins with."""
    defaults = {name: field.get_default() for name, field in type(config).model_fields.items()}
    if begins is not None:
        defaults = dict(begins)
    return [name for name, default in defaults.items() if getattr(config, name) != default]


def check_num_prompts(config: RLHFConfig, rows: Rows, source: str) -> None:
    """Enough prompts for those held out, and for comparisons that teach."""
    held = config.num_held_out
    if len(rows) <= held:
        raise UserError(
            f"{rows.source} has {len(rows)} prompts, of which num_held_out={held} would be "
            "held out: give more prompts or a smaller num_held_out"
        )
    num = (len(rows) - held) * pairs_of(config)
    if source != "file" and config.feedback.store is None and num < MIN_COMPARISONS:
        raise UserError(
            f"{len(rows) - held} training prompts give at most {num} comparisons, but at least "
            f"{MIN_COMPARISONS} that prefer one answer are needed to teach a reward model: raise "
            "feedback.pairs_per_prompt or feedback.answers_per_prompt, or give more prompts"
        )


def pairs_of(config: RLHFConfig) -> int:
    """Most pairs that the answers to a prompt can make."""
    feedback = config.feedback
    return min(feedback.pairs_per_prompt, math.comb(feedback.answers_per_prompt, 2))


def check_store(where: str | None) -> None:
    """A feedback store that exists can be opened, and one that does not can be made; it is not."""
    if where is None or "://" in where:  # a server is asked when the run begins
        return
    from plaudit.feedback.store import FeedbackStore

    path = Path(where)
    if path.exists():
        FeedbackStore(path, create=False).close()
    elif not path.parent.is_dir():
        raise UserError(f"{where}: the folder {path.parent} does not exist; make it first")
    elif not os.access(path.parent, os.W_OK):
        raise UserError(f"{where}: the store cannot be written: its folder is read-only")


def check_comparisons(rows: Rows, *, seed: int, alone: bool) -> None:
    """Comparisons of a file: of different answers, on several prompts, enough of them to teach.

    Unless they are `alone` in their store it is for the store to say whether they are enough.
    """
    equal = [i for i, row in enumerate(rows) if _answer(row, "chosen") == _answer(row, "rejected")]
    if equal:
        raise UserError(
            f"{rows.where(equal[0])}: chosen and rejected are the same text, which teaches nothing"
            f"{_also(rows, equal)}: leave such rows out"
        )
    if not alone:
        return
    if len({_asked(row) for row in rows}) < 2:
        raise UserError(
            f"{rows.source}: all comparisons are on one prompt, so none could judge what is "
            "learned from the others: give comparisons of at least 2 prompts"
        )
    num, num_prompts, num_held = taught_by(rows, seed=seed)
    if num < MIN_COMPARISONS:
        raise UserError(
            f"{rows.source} has {len(rows)} comparisons, of which {num} would teach the reward "
            f"model and those on {num_held} of its {num_prompts + num_held} prompts would judge "
            f"it, but at least {MIN_COMPARISONS} are needed to teach: give more comparisons"
        )


def taught_by(rows: Rows, *, seed: int) -> tuple[int, int, int]:
    """Comparisons of a file that teach, the prompts they are on, and the prompts that judge."""
    numbers = {text: n for n, text in enumerate(dict.fromkeys(_asked(r) for r in rows))}
    held = held_out_prompts(len(numbers), share=JUDGING_SHARE, seed=seed)
    num = sum(numbers[_asked(row)] not in held for row in rows)
    return num, len(numbers) - len(held), len(held)


def longest_compared(rows: Rows, codec: TextCodec) -> int:
    """Tokens of the longest compared answer with its prompt.

    Raises UserError with the line of one that the model could not read, or not within its context.
    """
    longest = 0
    for i, row in enumerate(rows):
        with at_row(rows, i):
            prompt = codec.prompt(row["prompt"])
            for name in ("chosen", "rejected"):
                words = _answer(row, name)
                num = len(codec.completion_ids(prompt, words))
                codec.require_closed(prompt, words)
                if len(prompt.ids) + num > codec.context:
                    raise UserError(
                        f"the prompt has {len(prompt.ids):,} tokens, which with the {num:,} of the "
                        f"{name} answer exceeds the model's context of {codec.context:,}"
                    )
                longest = max(longest, len(prompt.ids) + num)
    return longest


def seen_prompts(rows: Rows, num_held_out: int, given: Sequence[Rows] = ()) -> list[int]:
    """Held-out rows whose prompt is trained on too, in other rows or in other files (`given`).

    It is no error: questions with several references stand in several rows, of which the last may
    be held out.
    """
    trained = {_asked(row) for row in rows[:-num_held_out]}
    trained |= {_asked(row) for other in given for row in other}
    held = range(len(rows) - num_held_out, len(rows))
    return [i for i in held if _asked(rows[i]) in trained]


def said_of_seen(rows: Rows, num_held_out: int, given: Sequence[Rows] = ()) -> list[str]:
    """What to know where held-out prompts are trained on too."""
    seen = seen_prompts(rows, num_held_out, given)
    if not seen:
        return []
    wanted = _asked(rows[seen[0]])
    places = [
        f"{rows.unit} {rows.numbers[j]}"
        for j, row in enumerate(rows[:-num_held_out])
        if _asked(row) == wanted
    ]
    places += [
        other.where(j) for other in given for j, row in enumerate(other) if _asked(row) == wanted
    ]
    verb = "is" if len(seen) == 1 else "are"
    return [
        f"Note: {len(seen)} of the {num_held_out} held-out prompts {verb} trained on too: "
        f"{rows.where(seen[0])}, asks what {places[0]} asks"
        f"{_also(rows, seen)}, so the report does not tell how new prompts are answered there"
    ]


def require_decided(
    opinions: Opinions, which: str, source: str, at_least: int = MIN_COMPARISONS
) -> None:
    """Enough comparisons, once they are made, prefer one of two different answers."""
    pairs = opinions.pairs
    decided = sum(
        q != 0.5 and a != b for a, b, q in zip(pairs.a, pairs.b, pairs.share, strict=True)
    )
    if decided >= at_least:
        return
    cure = {
        "reward": "the reward gives most answers the same score, so let it tell more of them apart "
        "in a new run",
        "annotators": "in a new run, lower feedback.tie_threshold, or raise "
        "feedback.pairs_per_prompt or feedback.answers_per_prompt",
        "people": "collect more votes",
        "file": "give more comparisons in a new run",
    }[source]
    raise UserError(
        f"only {decided} {which} comparisons prefer one answer, but at least {at_least} are "
        f"needed: {cure}",
        new_run=source != "people",
    )


def _asked(row: Row) -> str:
    """A prompt as far as it tells comparisons apart: a plain text is one turn of the user."""
    return json.dumps(canonical_messages(row["prompt"]), sort_keys=True)


def _answer(row: Row, name: str) -> str:
    """The answer alone, where it may hold the conversation too."""
    return answer_text(answer_after(row["prompt"], row[name], name))


def _also(rows: Rows, found: Sequence[int]) -> str:
    """Which other lines have the same fault."""
    rest = [str(rows.numbers[i]) for i in found[1:]]
    if not rest:
        return ""
    more = f" and {len(rest) - NAMED:,} more" if len(rest) > NAMED else ""
    return f" (also {rows.unit} {', '.join(rest[:NAMED])}{more})"

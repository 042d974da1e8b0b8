"""What the RLHF job is given, read and checked before any model is: files, and who judges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from plaudit.feedback.raters import gold_score, simulated_annotators
from plaudit.pipelines.rlhf.config import DEMO_PROMPTS, RLHFConfig
from plaudit.pipelines.rlhf.evaluation import Gold
from plaudit.pipelines.rlhf.refusals import (
    check_comparisons,
    check_keys,
    check_num_prompts,
    said_of_seen,
    said_of_unused,
)
from plaudit.pipelines.rlhf.sources import Source, read_sources, require_kept
from plaudit.records.fingerprints import mendable
from plaudit.records.rows import Rows
from plaudit.records.runs import RunFolder
from plaudit.rewards.functions import (
    LoadedReward,
    check_columns,
    checked_scores,
    load_reward_function,
)


@dataclass(frozen=True)
class Inputs:
    """The job's files and judges.

    `source` is who compares (`feedback.source`, resolved), `sources` the files by use, `reward` the
    user's rule where the config names one, `gold` the noiseless judge behind the raters: None where
    only people or a file judged.
    """

    config: RLHFConfig
    source: str
    sources: dict[str, Source]
    reward: LoadedReward | None
    gold: Gold | None

    @property
    def prompts(self) -> Rows:
        """Rows of the prompts' file."""
        return self.sources["prompts"].rows

    def given(self) -> list[Rows]:
        """Files besides the prompts' whose prompts are trained on."""
        return [source.rows for use, source in self.sources.items() if use != "prompts"]

    def refuse(self, note: Callable[[str], None]) -> None:
        """Refuses what needs no model to be refused; `note` is told what is only odd."""
        config, rows = self.config, self.prompts
        check_num_prompts(config, rows, self.source)
        if config.reward is not None and self.reward is not None:
            check_columns(self.reward, rows[0], rows.source, name=config.reward)
        if self.source == "annotators":
            simulated_annotators(1, config.seed)
        for said in said_of_seen(rows, config.num_held_out, self.given()):
            note(said)
        if "feedback" in self.sources:
            alone = config.feedback.store is None
            check_comparisons(self.sources["feedback"].rows, seed=config.seed, alone=alone)


def read_inputs(config: RLHFConfig, run: RunFolder, note: Callable[[str], None]) -> Inputs:
    """Reads what the config names; `note` is told what the readers have to say."""
    source = source_of(config)
    check_keys(config, source)
    reward = None if config.reward is None else load_reward_function(config.reward)
    sources = _read(config, source)
    for said in (
        *said_of_unused(config, source),
        *(n for s in sources.values() for n in s.rows.notes),
    ):
        note(said)
    gold = _gold(config, source, reward, sources["prompts"].rows, run)
    return Inputs(config, source, sources, reward, gold)


def source_of(config: RLHFConfig) -> str:
    """Who compares, where the config leaves it open: the file or the reward function it names."""
    if config.feedback.source is not None:
        return config.feedback.source
    if config.feedback.file is not None:
        return "file"
    return "reward" if config.reward is not None else "annotators"


def _read(config: RLHFConfig, source: str) -> dict[str, Source]:
    path = str(DEMO_PROMPTS) if config.prompts == "demo" else config.prompts
    files = {"prompts": (path, "prompt")}
    if config.demonstrations is not None:
        files["demonstrations"] = (config.demonstrations, "prompt-completion")
    if source == "file" and config.feedback.file is not None:
        files["feedback"] = (config.feedback.file, "preference")
    return read_sources(files, config.columns)


def _gold(
    config: RLHFConfig, source: str, reward: LoadedReward | None, rows: Rows, run: RunFolder
) -> Gold | None:
    name = config.reward
    if name is not None:
        assert reward is not None
        require_kept(rows, reward, name=name)

        def judge(p: Sequence[str], c: Sequence[str], columns: dict[str, list[Any]]) -> list[float]:
            with mendable(run, "reward"):
                return checked_scores(reward, p, c, columns, name=name)

        return judge
    if source == "annotators":
        return lambda p, c, columns: [gold_score(text) for text in c]
    return None

"""The main job: take a chat model and people's opinions of its answers, and make it better.

    (SFT) → answers → feedback → reward model → PPO → answers again → what changed

Each stage is one call below; what is done is kept in the run folder and never repeated. One frozen
trunk serves the actor, the reference, the critic and the reward model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plaudit.engine.local import (
    ROLLOUT,
    LocalActor,
    LocalCritic,
    LocalReference,
    LocalRewardModel,
)
from plaudit.engine.shared import SharedBackbone, check_layers
from plaudit.engine.tops import LoRA
from plaudit.feedback.raters import Rater, RuleRater, gold_score, simulated_annotators
from plaudit.lm.ppo import ppo
from plaudit.lm.sft import sft
from plaudit.models.answers import given_answers
from plaudit.models.classifier import check_answered, check_classifier, check_kind
from plaudit.models.formats.load import LanguageModel, ModelFolder, read_folder
from plaudit.ops import outcome_reward
from plaudit.pipelines.drive import Heard, Progress
from plaudit.pipelines.rlhf.answers import answers_from, draw_answers
from plaudit.pipelines.rlhf.config import DEMO_PROMPTS, RLHFConfig
from plaudit.pipelines.rlhf.evaluation import (
    Gold,
    Side,
    answer_rows,
    compare_sides,
    gold_scores,
    reward_model_figures,
)
from plaudit.pipelines.rlhf.opinions import (
    Opinions,
    collect_votes,
    opinions_of_texts,
    opinions_on,
    pair_items,
    split_of,
    split_opinions,
)
from plaudit.pipelines.rlhf.refusals import (
    JUDGING_SHARE,
    MIN_COMPARISONS,
    check_comparisons,
    check_keys,
    check_num_prompts,
    check_store,
    fingerprints,
    longest_compared,
    require_decided,
    said_of_seen,
    seen_prompts,
)
from plaudit.pipelines.rlhf.sources import (
    Source,
    examples_of,
    prompts_of,
    read_sources,
    require_kept,
)
from plaudit.pipelines.stages import Stages
from plaudit.pipelines.threads import free_threads, spare_threads
from plaudit.records.collecting import collecting_later
from plaudit.records.errors import UserError
from plaudit.records.fingerprints import check_sources, mendable
from plaudit.records.interrupt import Interrupt, Interrupted
from plaudit.records.rows import Rows
from plaudit.records.runs import RunFolder
from plaudit.records.state import Saved, part_of
from plaudit.records.types import Prompt, Trajectories
from plaudit.rewards.functions import (
    LoadedReward,
    check_columns,
    checked_scores,
    load_reward_function,
)
from plaudit.rewards.model import fit_reward_model

if TYPE_CHECKING:
    from plaudit.feedback.store import FeedbackStore


def run_rlhf(
    config: RLHFConfig, run: RunFolder, *, progress: Progress, interrupt: Interrupt
) -> dict[str, Any]:
    """Run or continue the job in `run`; returns the summary."""
    with free_threads(run, progress.note):
        return _Job(config, Stages(run, progress, interrupt)).run()


def check_rlhf(config: RLHFConfig, place: Path) -> Iterator[str]:
    """Refuse what the job would refuse, and say what it would do; nothing is left behind."""
    heard = Heard()
    job = _Job(config, Stages(RunFolder(place), heard, Interrupt(heard.note)))
    with spare_threads(), collecting_later():
        lines = [*job.check()]
    yield from (*heard.notes, *lines)


@dataclass
class _Job:
    """The job's parts, made when first needed, and its stages in order."""

    config: RLHFConfig
    stages: Stages

    def run(self) -> dict[str, Any]:
        config = self.config
        self._check_unchanged()
        self.refuse()
        train, held_out = self.prompts
        _ = self.store  # a place that cannot be used is refused now
        given = self._opinions_of_file() if self.source == "file" else None
        if config.demonstrations is not None:
            self._fine_tune()
        reference = LocalReference(self.backbone)
        answers = [self._draw("answers_train", train), self._draw("answers_held_out", held_out)]
        learn, judge = given or self._opinions(*answers)
        reward_model, figures = self._reward_model(learn, judge)
        scores = reward_model.scores(answers[0])
        unit = _standardised(reward_model, scores)
        before = answers[1]
        self.backbone.states.drop("answers_train", "learn", "judge")  # 0.2 GB in the demo
        del answers, learn, judge, given
        self._improve(unit, reference, train)
        self._save(reward_model)
        after = self._draw("answers_after", held_out)
        sides = [
            Side(
                batch,
                reward=reward_model.scores(batch),
                logp_ref=reference.logprobs(batch),
                logp_own=reference.logprobs(batch.as_given()),
                gold=gold_scores(self.gold, batch),
            )
            for batch in (before, after)
        ]
        seen = seen_prompts(self.sources["prompts"].rows, config.num_held_out, self._given_rows())
        summary = {**figures, **compare_sides(*sides), "feedback": self._feedback_figures()}
        summary |= {"held_out_seen": len(seen)}
        return self._conclude(summary, sides)

    # --- what the stages share

    @cached_property
    def model(self) -> ModelFolder:
        """What the model says before its weights are read, which takes longer than all refusals."""
        return read_folder(self.config.model, template=self.config.template)

    @cached_property
    def lm(self) -> LanguageModel:
        return self.model.load()

    @cached_property
    def backbone(self) -> SharedBackbone:
        """The model cut, and its numbers compared with its own as far as the texts will go."""
        num = self.config.num_top_layers
        return SharedBackbone(self.lm, num_top_layers=num, longest=self.longest)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest conversation there will be; each text is read for it."""
        longest = max(len(prompt.ids) for part in self.prompts for prompt in part)
        longest += self.config.sampling.max_new_tokens
        longest = max([longest, *(len(p.ids) + len(ids) for p, ids in self.examples)])
        if "feedback" in self.sources:
            rows = self.sources["feedback"].rows
            longest = max(longest, longest_compared(rows, self.model.codec))
        return longest

    @cached_property
    def examples(self) -> list[tuple[Prompt, tuple[int, ...]]]:
        """Demonstrations, where there are any: prompts with the ids of their wanted answers."""
        if "demonstrations" not in self.sources:
            return []
        return examples_of(self.sources["demonstrations"].rows, self.model.codec)

    @cached_property
    def actor(self) -> LocalActor:
        config = self.config
        lora = LoRA(config.lora_rank, config.seed) if config.lora_rank else None
        return LocalActor(self.backbone, adam=config.adam, lora=lora)

    @cached_property
    def prompts(self) -> tuple[list[Prompt], list[Prompt]]:
        """(training prompts, held-out prompts), each short enough for the model."""
        rows, held = self.sources["prompts"].rows, self.config.num_held_out
        codec = self.model.codec
        prompts = prompts_of(rows, codec, max_new_tokens=self.config.sampling.max_new_tokens)
        return prompts[:-held], prompts[-held:]

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The files of the job by use, each read and checked."""
        config = self.config
        path = str(DEMO_PROMPTS) if config.prompts == "demo" else config.prompts
        files = {"prompts": (path, "prompt")}
        if config.demonstrations is not None:
            files["demonstrations"] = (config.demonstrations, "prompt-completion")
        if self.source == "file" and config.feedback.file is not None:
            files["feedback"] = (config.feedback.file, "preference")
        sources = read_sources(files, config.columns)
        for source in sources.values():
            for note in source.rows.notes:
                self.stages.progress.note(note)
        return sources

    @property
    def source(self) -> str:
        if self.config.feedback.source is not None:
            return self.config.feedback.source
        return "reward" if self.config.reward is not None else "annotators"

    @cached_property
    def reward(self) -> LoadedReward | None:
        """The user's rule; none where the config names none."""
        name = self.config.reward
        return None if name is None else load_reward_function(name)

    @cached_property
    def gold(self) -> Gold | None:
        """The noiseless judge behind the raters; none where only people or a file judged."""
        name = self.config.reward
        if name is not None:
            function = self.reward
            assert function is not None
            require_kept(self.sources["prompts"].rows, function, name=name)

            def judge(
                p: Sequence[str], c: Sequence[str], columns: dict[str, list[Any]]
            ) -> list[float]:
                with mendable(self.stages.run, "reward"):
                    return checked_scores(function, p, c, columns, name=name)

            return judge
        if self.source == "annotators":
            return lambda p, c, columns: [gold_score(text) for text in c]
        return None

    @cached_property
    def store(self) -> FeedbackStore:
        from plaudit.feedback.store import FeedbackStore

        return FeedbackStore(self.config.feedback.store or self.stages.run.path / "feedback.sqlite")

    def refuse(self) -> None:
        """Refuses all that can be before anything long begins."""
        config, rows = self.config, self.sources["prompts"].rows
        check_num_prompts(config, rows, self.source)
        self._check_reward(rows)
        if self.source == "annotators":
            simulated_annotators(1, config.seed)
        for note in said_of_seen(rows, config.num_held_out, self._given_rows()):
            self.stages.progress.note(note)
        if "feedback" in self.sources:
            alone = config.feedback.store is None
            check_comparisons(self.sources["feedback"].rows, seed=config.seed, alone=alone)
        if self.model.num_layers is not None:
            check_layers(config.num_top_layers, self.model.num_layers)
        _ = self.longest
        check_answered(self.model.codec)
        check_kind(self.model.config)
        _ = self.actor  # the weights are read, and layers and ranks are there
        check_classifier(self.lm)

    def _given_rows(self) -> list[Rows]:
        """Files besides the prompts' whose prompts are trained on."""
        return [source.rows for use, source in self.sources.items() if use != "prompts"]

    def check(self) -> Iterator[str]:
        """Says what would be done once it is clear that it can be."""
        from plaudit.pipelines.rlhf.check import told, works

        check_keys(self.config, self.source)
        check_store(self.config.feedback.store)
        _ = self.gold
        self.refuse()
        given = self.sources.get("feedback")
        stages = works(
            self.config,
            *self.prompts,
            source=self.source,
            given=None if given is None else given.rows,
            demonstrated=[len(prompt.ids) + len(ids) for prompt, ids in self.examples],
        )
        yield from told(self.config, self.backbone, self.actor, *self.prompts, stages)

    def _check_unchanged(self) -> None:
        """A run that goes on must find what it began with."""
        check_keys(self.config, self.source)
        _ = self.gold  # a reward that can be found
        found = fingerprints(self.config, self.sources)
        check_sources(self.stages.run, found, self.stages.progress.note)

    def _check_reward(self, rows: Rows) -> None:
        name, function = self.config.reward, self.reward
        if name is not None and function is not None:
            check_columns(function, rows[0], rows.source, name=name)

    # --- stages

    def _fine_tune(self) -> None:
        data = given_answers(self.examples, pad_id=self.lm.codec.pad_id)
        self.backbone.remember("sft", data)
        kept = self.stages.take(
            "sft",
            lambda saved: sft(
                self.config.sft, actor=self.actor, data=data, seed=self.config.seed, saved=saved
            ),
            keep=lambda name: name.startswith("actor/weight."),
            headline=["loss", "lr"],
        )
        self.backbone.states.drop("sft")
        self.actor.restore(_weights("actor", kept.arrays))

    def _draw(self, name: str, prompts: Sequence[Prompt]) -> Trajectories:
        config, states = self.config, self.backbone.states
        num = config.feedback.answers_per_prompt
        kept = self.stages.take(
            name,
            lambda saved: draw_answers(
                self.actor,
                prompts,
                num_answers=num,
                sampling=config.sampling,
                seed=config.seed,
                also=states.arrays,
                saved=saved,
            ),
            headline=["answer/length", "answer/finished", "policy/nll"],
        )
        states.drop(ROLLOUT)
        batch = answers_from(
            kept.arrays,
            prompts,
            num_answers=num,
            sampling=config.sampling,
            codec=self.lm.codec,
        )
        if "answer_hidden" in kept.arrays:
            states.put(name, batch, kept.arrays["prompt_hidden"], kept.arrays["answer_hidden"])
        return batch

    def _opinions(self, train: Trajectories, held_out: Trajectories) -> tuple[Opinions, Opinions]:
        """(to learn from, to judge the reward model by), from whatever the source is."""
        config = self.config.feedback
        items = [
            item
            for split, batch in (("train", train), ("held_out", held_out))
            for item in pair_items(
                batch,
                pairs_per_prompt=config.pairs_per_prompt,
                split=split,
                model=self.config.model,
                seed=self.config.seed,
            )
        ]
        if not items:
            raise UserError(
                "all answers to each prompt are equal, so there is nothing to compare: "
                "raise the sampling temperature in a new run",
                new_run=True,
            )
        if self.source == "people":
            self._wait_for_people(items)
        else:
            self.stages.take(
                "feedback",
                lambda saved: collect_votes(
                    self.store,
                    items,
                    self._raters(),
                    votes_per_pair=config.votes_per_pair,
                    seed=self.config.seed,
                    saved=saved,
                ),
                headline=["feedback/votes", "feedback/ties"],
            )
        comparisons = self.store.comparisons()
        if any(split_of(c) is None for c in comparisons):
            return self._split_texts()
        learn = opinions_on(train, comparisons, split="train")
        judge = opinions_on(held_out, comparisons, split="held_out")
        return self._decided(learn, judge)

    def _opinions_of_file(self) -> tuple[Opinions, Opinions]:
        from plaudit.feedback.exchange import import_comparisons

        file, renames = self.config.feedback.file, self.sources["feedback"].renames
        assert file is not None
        import_comparisons(self.store, file, columns=renames)
        return self._split_texts()

    def _split_texts(self) -> tuple[Opinions, Opinions]:
        opinions = opinions_of_texts(self.store.comparisons(), self.lm.codec)
        seed = self.config.seed
        return self._decided(*split_opinions(opinions, share=JUDGING_SHARE, seed=seed))

    def _decided(self, learn: Opinions, judge: Opinions) -> tuple[Opinions, Opinions]:
        """Both, where they are enough to teach a reward model and to judge it."""
        require_decided(learn, "training", self.source)
        require_decided(judge, "held-out", self.source, at_least=1)
        return learn, judge

    def _raters(self) -> Sequence[Rater]:
        if self.source == "annotators":
            feedback = self.config.feedback
            return simulated_annotators(
                feedback.num_annotators, self.config.seed, threshold=feedback.tie_threshold
            )
        name, gold = self.config.reward, self.gold
        assert name is not None
        assert gold is not None

        def judged(
            prompts: list[str], completions: list[str], **columns: list[Any]
        ) -> Sequence[float]:
            return gold(prompts, completions, columns)

        return [RuleRater(name, judged)]

    def _wait_for_people(self, items: Sequence[Any]) -> None:
        """Raises Interrupted until enough votes prefer one answer, on prompts of both splits."""
        self.store.add_items(items)
        decided = [split_of(c) for c in self.store.comparisons() if c.chosen is not None]
        if None in decided:
            return  # imported ones are split by prompt, and counted, later
        num = decided.count("train")
        if num < MIN_COMPARISONS or num == len(decided):
            raise Interrupted(
                f"{len(items)} pairs wait for people's votes in {self.store.name}: votes that "
                f"prefer one answer are {num} on training prompts, of at least {MIN_COMPARISONS}, "
                f"and {len(decided) - num} on held-out prompts, of at least 1"
            )

    def _feedback_figures(self) -> dict[str, Any]:
        from dataclasses import asdict

        from plaudit.feedback.stats import feedback_stats

        return asdict(feedback_stats(self.store))

    def _reward_model(
        self, learn: Opinions, judge: Opinions
    ) -> tuple[LocalRewardModel, dict[str, Any]]:
        model = LocalRewardModel(self.backbone, adam=self.config.adam)
        self.backbone.remember("learn", learn.batch)
        self.backbone.remember("judge", judge.batch)
        kept = self.stages.take(
            "reward_model",
            lambda saved: fit_reward_model(
                self.config.reward_model,
                model=model,
                batch=learn.batch,
                pairs=learn.pairs,
                held_out=(judge.batch, judge.pairs),
                seed=self.config.seed,
                saved=saved,
            ),
            keep=lambda name: name.startswith("model/weight."),
            headline=["loss", "accuracy", "eval/accuracy"],
        )
        model.restore(_weights("model", kept.arrays))
        model.freeze()
        return model, reward_model_figures(model.scores(judge.batch), judge)

    def _improve(
        self, reward: _Standardised, reference: LocalReference, prompts: Sequence[Prompt]
    ) -> None:
        critic = LocalCritic.from_reward_model(
            reward.model, scale=1 / reward.std, shift=reward.mean, adam=self.config.adam
        )
        kept = self.stages.take(
            "ppo",
            lambda saved: ppo(
                self.config.ppo,
                actor=self.actor,
                critic=critic,
                reference=reference,
                reward=reward,
                prompts=prompts,
                sampling=self.config.sampling,
                seed=self.config.seed,
                gold=None if self.gold is None else _Watched(self.gold),
                saved=saved,
            ),
            keep=lambda name: name.startswith("actor/weight."),
            headline=["objective/scores", "objective/kl", "answer/length"],
        )
        self.actor.restore(_weights("actor", kept.arrays))

    def _save(self, reward_model: LocalRewardModel) -> None:
        """Write the improved policy, its adapter where there is one, and the reward model."""
        run = self.stages.run.path
        self.actor.save(run / "model")
        if self.config.lora_rank:
            self.actor.save_adapter(run / "adapter")
        reward_model.save(run / "reward_model")

    def _conclude(self, summary: dict[str, Any], sides: Sequence[Side]) -> dict[str, Any]:
        run = self.stages.run
        names = dict.fromkeys(str(row["stage"]) for row in run.read_jsonl("events.jsonl"))
        seconds = {name: (run.stage_results(name) or {}).get("seconds", 0.0) for name in names}
        summary = {"seconds": sum(seconds.values()), "stage_seconds": seconds, **summary}
        from plaudit.pipelines.pages.report import write_report  # matplotlib takes its time

        rows = answer_rows(*sides)
        run.write_json("answers.json", {"answers": rows})
        write_report(run.path, summary, rows)
        run.finish(json.loads(json.dumps(summary)))
        return summary


@dataclass(frozen=True)
class _Watched:
    """The gold rater in the role of a reward, for the curve that PPO logs beside its own."""

    gold: Gold

    def __call__(self, batch: Trajectories) -> Tensor:
        scores = torch.tensor(gold_scores(self.gold, batch), dtype=torch.float64)
        return outcome_reward(scores, batch.chosen)


@dataclass(frozen=True)
class _Standardised:
    """Scores with mean 0 and s.d. 1 over the starting model's answers to the training prompts.

    Source: Huang et al. 2024 (2403.17031), detail 7, for the mean; the s.d. makes one unit of
    score, and so the KL coefficient, mean the same for every reward model.
    """

    model: LocalRewardModel
    mean: float
    std: float

    def __call__(self, batch: Trajectories) -> Tensor:
        return outcome_reward((self.model.scores(batch) - self.mean) / self.std, batch.chosen)


def _standardised(model: LocalRewardModel, scores: Tensor) -> _Standardised:
    """UserError where the scores do not differ by more than rounding: no unit can be made of them."""
    std = float(scores.std())
    if not std > 1e-6 * max(1.0, float(scores.abs().max())):
        raise UserError(
            "the reward model gives all answers to the training prompts the same score, so PPO "
            "would have nothing to climb: give prompts that are answered in more than one way, or "
            "more comparisons",
            new_run=True,
        )
    return _Standardised(model, float(scores.mean()), std)


def _weights(role: str, arrays: dict[str, Tensor]) -> Saved:
    """What a stage kept of a role, for it to begin anew with."""
    return part_of((arrays, {role: {"version": 0}}), role)

"""The keys of the language-model jobs: those of the algorithm, and what all of them share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from plaudit.engine.devices import DeviceName, DtypeName
from plaudit.engine.learner import AdamConfig
from plaudit.lm.best_of_n import BestOfNConfig
from plaudit.lm.dpo import DPOConfig
from plaudit.lm.grpo import GRPOConfig
from plaudit.lm.kto import KTOConfig
from plaudit.lm.online_dpo import OnlineDPOConfig
from plaudit.lm.ppo import PPOConfig
from plaudit.lm.reinforce_pp import ReinforcePPConfig
from plaudit.lm.rloo import RLOOConfig
from plaudit.lm.sft import SFTConfig
from plaudit.records.config import Config
from plaudit.records.sampling import Precision, Sampling
from plaudit.rewards.model import RewardModelConfig

TOP_LAYERS = 6
"""Layers that are trained where nothing is said, or all of a model that has fewer."""

DEMO_PROMPTS = Path(__file__).parents[2] / "recipes" / "prompts_demo.jsonl"
"""Prompts of our own."""


class ModelKeys(Config):
    """What every language-model job is told of its model."""

    model: str = Field(
        "smollm2",
        description="A Hugging Face folder, a GGUF file, a hub id, or smollm2 (the embedded model).",
    )
    template: str | None = Field(
        None, description="A chat template file for a model without one, or none for plain text."
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Names of columns in your files: prompt=question."
    )
    num_top_layers: int | None = Field(
        None,
        ge=1,
        description=f"Layers trained, from the top; none: {TOP_LAYERS}, or all of a smaller model.",
    )
    lora_rank: int = Field(
        0, ge=0, description="Rank of adapters that are learned; 0: the layers' own weights."
    )
    device: DeviceName = Field(
        "auto", description="Where the model is: cpu, cuda, or auto (a GPU if there is one)."
    )
    dtype: DtypeName = Field(
        "float32", description="Precision of the weights and of the optimiser."
    )
    eval_every: int = Field(
        0,
        ge=0,
        description="Steps between looks at what is held out; 0: before and after alone.",
    )
    stop_at: dict[str, float] = Field(
        default_factory=dict,
        description="Stop once a held-out figure is reached: eval/accuracy=0.9.",
    )
    adam: AdamConfig = Field(AdamConfig(), description="The optimiser.")
    seed: int = Field(0, ge=0, description="Decides every draw, order and split of the job.")


class DataKeys(ModelKeys):
    """A job that learns from a file."""

    data: str = Field(description="JSONL, CSV or Parquet; 'plaudit data check FILE' looks at it.")
    held_out: str | None = Field(
        None, description="A file to judge by; none: a share of the data's own prompts."
    )
    held_out_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the prompts that judge and do not teach; 0: none."
    )
    max_length: int | None = Field(
        None,
        ge=2,
        description="Longest row in tokens, prompt and answer; longer ones are left out, never cut. "
        "None: the model's context.",
    )


class PromptKeys(ModelKeys):
    """A job that learns from what a reward says of its own answers."""

    prompts: str = Field(
        "demo",
        description="JSONL, CSV or Parquet with a prompt column, or demo (prompts of our own).",
    )
    reward: list[str] = Field(
        ["sentiment"],
        min_length=1,
        description="Who judges: file.py:function, module:function, the folder of a reward model, "
        "or sentiment; several add up.",
    )
    weights: list[float] | None = Field(
        None, description="What each reward counts for; none: one each."
    )
    reward_timeout: float | None = Field(
        None,
        gt=0,
        description="Seconds for one answer, of rewards that judge one at a time; it then abstains.",
    )
    reward_workers: int = Field(
        0,
        ge=0,
        description="Processes for rewards that judge one answer at a time and are not async.",
    )
    num_held_out: int = Field(
        16, ge=0, description="Prompts at the end of the file that are never trained on."
    )
    held_out_answers: int = Field(4, ge=1, description="Answers to each of them, before and after.")
    sampling: Sampling = Field(
        Sampling(max_new_tokens=40, temperature=0.7), description="How answers are drawn."
    )
    sampler_precision: Precision = Field(
        "float32",
        description="Of the products that answers are drawn by: float32 stands for dtype, int8 rounds.",
    )


class SFTJob(SFTConfig, DataKeys):
    """Supervised fine-tuning on conversations, wanted answers or plain text."""


class RewardJob(RewardModelConfig, DataKeys):
    """A reward model of comparisons."""


class DPOJob(DPOConfig, DataKeys):
    """Learning from pairs of answers directly: DPO, or one of its kin by the key loss."""


class SimPOJob(DPOJob):
    """SimPO: pairs by the mean log-probability of their tokens, without a reference."""

    loss: Literal["simpo", "alpha_po"] = Field(
        "simpo", description="SimPO, or AlphaPO by alpha_po."
    )
    beta: float = Field(2.5, gt=0, description="Weight of the mean log-probability (2405.14734).")
    gamma: float = Field(1.375, ge=0, description="Lead asked for: 0.55 of beta (2405.14734).")


class ORPOJob(DPOJob):
    """ORPO: fine-tuning on the chosen answers and their odds over the rejected ones, in one."""

    loss: Literal["orpo"] = Field("orpo", description="ORPO has one loss.")
    beta: float = Field(0.1, gt=0, description="Weight λ of the odds (2403.07691).")


class KTOJob(KTOConfig, DataKeys):
    """Learning from answers that were each called good or bad."""


class PPOJob(PPOConfig, PromptKeys):
    """PPO with four roles; the critic begins as the policy with an empty head."""


class GRPOJob(GRPOConfig, PromptKeys):
    """GRPO and its variants: answers of one prompt judged against each other."""


class RLOOJob(RLOOConfig, PromptKeys):
    """REINFORCE for whole answers, with a prompt's other answers as the baseline."""


class ReinforcePPJob(ReinforcePPConfig, PromptKeys):
    """REINFORCE++: clipped steps with the whole batch as the baseline."""


class OnlineDPOJob(OnlineDPOConfig, PromptKeys):
    """DPO on pairs of the policy's own answers."""


class BestOfNJob(BestOfNConfig, PromptKeys):
    """The best of n answers by a reward, learned from again and again."""

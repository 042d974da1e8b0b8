"""The keys of the RLHF job; their defaults are the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from plaudit.engine.devices import DeviceName, DtypeName
from plaudit.engine.learner import AdamConfig
from plaudit.lm.best_of_n import BestOfNConfig
from plaudit.lm.grpo import GRPOConfig
from plaudit.lm.online_dpo import OnlineDPOConfig
from plaudit.lm.ppo import PPOConfig
from plaudit.lm.reinforce_pp import ReinforcePPConfig
from plaudit.lm.rloo import RLOOConfig
from plaudit.lm.sft import SFTConfig
from plaudit.records.config import Config
from plaudit.records.sampling import Precision, Sampling
from plaudit.rewards.model import RewardModelConfig

DEMO_PROMPTS = Path(__file__).parents[2] / "recipes" / "prompts_demo.jsonl"
"""Sixty-four prompts of our own; the last sixteen are held out by the default recipe."""


class FeedbackConfig(Config):
    """Who compares which answers."""

    source: Literal["annotators", "reward", "file", "people"] | None = Field(
        None,
        description=(
            "annotators: simulated with real human disagreement over sentiment; reward: the reward "
            "function; file: comparisons from `file`; people: wait for votes in the "
            "store. None: the file if one is named, else the reward function if there is one, "
            "else annotators."
        ),
    )
    file: str | None = Field(
        None,
        description="Comparisons to learn from: prompt, chosen, rejected, or a known format.",
    )
    store: str | None = Field(
        None, description="Path or URL of the feedback store; none puts it in the run folder."
    )
    answers_per_prompt: int = Field(
        16, ge=2, description="Answers drawn for each prompt, from which pairs are made."
    )
    pairs_per_prompt: int = Field(60, ge=1, description="Pairs of answers compared per prompt.")
    votes_per_pair: int = Field(
        2, ge=1, description="Annotators who see a pair; two or more allow agreement figures."
    )
    votes_wanted: int = Field(
        100,
        ge=20,
        description="Votes of people that prefer one answer, at which the run goes on; no more than "
        "there are pairs.",
    )
    wait_seconds: float | None = Field(
        None,
        ge=0,
        description="Seconds to wait for people before the run is saved and stops, for it to be "
        "resumed; none: as long as it takes.",
    )
    num_annotators: int = Field(10, ge=1, description="Simulated annotators.")
    tie_threshold: float = Field(
        0.1,
        ge=0,
        description="Gap in sentiment (-1 to 1) up to which a simulated annotator sees a tie.",
    )


class RLHFConfig(Config):
    """The whole job; its defaults are the demo."""

    model: str = Field(
        "smollm2",
        description="A Hugging Face folder, a GGUF file, a hub id, or smollm2 (the embedded model).",
    )
    prompts: str = Field(
        "demo",
        description="JSONL, CSV or Parquet with a prompt column, or demo (prompts of our own).",
    )
    reward: str | None = Field(
        None,
        description="Rule that judges answers, module:function or file.py:function; none: sentiment.",
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="Names of columns in your files: prompt=question."
    )
    template: str | None = Field(
        None, description="A chat template file for a model without one, or none for plain text."
    )
    num_held_out: int = Field(
        16, ge=2, description="Prompts at the end of the file that are never trained on."
    )
    num_top_layers: int = Field(
        6, ge=1, description="Layers trained, from the top; all roles share the frozen rest."
    )
    lora_rank: int = Field(
        0,
        ge=0,
        description="Rank of adapters that the policy learns; 0: the layers' own weights.",
    )
    device: DeviceName = Field(
        "auto", description="Where the model is: cpu, cuda, or auto (a GPU if there is one)."
    )
    dtype: DtypeName = Field(
        "float32", description="Precision of the weights and of the optimiser."
    )
    sampler_precision: Precision = Field(
        "float32",
        description="Of the products that answers are drawn by: float32 stands for dtype, int8 rounds.",
    )
    sampling: Sampling = Field(
        Sampling(max_new_tokens=40, temperature=0.7),
        description="How answers are drawn, here and in PPO.",
    )
    demonstrations: str | None = Field(
        None, description="Wanted answers (prompt, completion) to fine-tune on first; none: no SFT."
    )
    feedback: FeedbackConfig = Field(FeedbackConfig(), description="Who compares which answers.")
    sft: SFTConfig = Field(SFTConfig(), description="Supervised fine-tuning.")
    reward_model: RewardModelConfig = Field(RewardModelConfig(), description="The reward model.")
    improve: Literal["ppo", "grpo", "rloo", "reinforce_pp", "online_dpo", "best_of_n"] = Field(
        "ppo", description="How the policy climbs the reward."
    )
    ppo: PPOConfig = Field(PPOConfig(), description="The policy's improvement by PPO.")
    grpo: GRPOConfig = Field(
        GRPOConfig(num_steps=10, num_minibatches=4, kl_coef=0.1, kl_in="reward", scale="none"),
        description="By GRPO; here with the KL in the score, and without dividing by the std.",
    )
    rloo: RLOOConfig = Field(
        RLOOConfig(num_steps=10, prompts_per_step=16, num_minibatches=4, kl_coef=0.1),
        description="By REINFORCE for whole answers.",
    )
    reinforce_pp: ReinforcePPConfig = Field(
        ReinforcePPConfig(num_steps=10, prompts_per_step=16, num_minibatches=4),
        description="By REINFORCE++.",
    )
    online_dpo: OnlineDPOConfig = Field(
        OnlineDPOConfig(num_steps=10, prompts_per_step=16, answers_per_prompt=4),
        description="By DPO on pairs of its own answers.",
    )
    best_of_n: BestOfNConfig = Field(
        BestOfNConfig(num_steps=10), description="By fine-tuning on the best of n answers."
    )
    adam: AdamConfig = Field(AdamConfig(), description="The optimiser of every role.")
    seed: int = Field(0, ge=0, description="Decides every draw, order and side of the job.")

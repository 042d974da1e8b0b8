"""TRL's side of `benchmarks/lm.py`: its own trainers' own loops, told when to take the next step."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    RLOOConfig,
    RLOOTrainer,
    SFTConfig,
    SFTTrainer,
)

from serve import Answer, Channel, forget_peak, memory, versions

MOST_STEPS = 10_000


class InTurn(TrainerCallback):
    """Holds the trainer between its steps until the next is asked for.

    A step is all from one end of a step to the next: reading the rows, forward and backward pass,
    clipping and the optimiser.
    """

    def __init__(self, channel: Channel, trainer: Any) -> None:
        self.channel = channel
        self.orders = channel.orders()
        self.losses: list[float] = []
        self.begin = 0.0
        once = trainer.training_step

        def training_step(*args: Any, **options: Any) -> torch.Tensor:
            loss = once(*args, **options)
            self.losses.append(float(loss))
            return loss

        trainer.training_step = training_step

    def _wait(self, control: Any) -> None:
        if next(self.orders, None) is None:
            control.should_training_stop = True
        forget_peak()
        self.begin = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """All is loaded."""
        packages = ("trl", "transformers", "torch")
        self.channel.say(ready=True, versions=versions(*packages), resident=memory("VmRSS"))
        self._wait(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Tell of the step, and wait."""
        seconds = time.perf_counter() - self.begin
        self.channel.say(seconds=seconds, peak=memory("VmHWM"), loss=self.losses[-1])
        self._wait(control)


def common(task: Answer, rows: int, folder: str) -> dict[str, Any]:
    """Settings of either trainer: float32, no recomputation, one step for all rows."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": rows,
        "max_steps": MOST_STEPS,
        "learning_rate": task["lr"],
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": MOST_STEPS,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "train_sampling_strategy": "sequential",
    }


def sft(task: Answer, folder: str) -> Any:
    """SFTTrainer on ids, the answers' tokens alone in the loss."""
    both = list(zip(task["prompts"], task["answers"], strict=True))
    data = Dataset.from_dict(
        {
            "input_ids": [p + a for p, a in both],
            "completion_mask": [[0] * len(p) + [1] * len(a) for p, a in both],
        }
    )
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(task["folder"], dtype=torch.float32),
        args=SFTConfig(**common(task, len(both), folder), completion_only_loss=True),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(task["folder"]),
    )


def reward(task: Answer, folder: str) -> Any:
    """RewardTrainer on ids, its head the one of the task."""
    of = {
        name: [p + a for p, a in zip(task["prompts"], task[name], strict=True)]
        for name in ("chosen", "rejected")
    }
    model = AutoModelForSequenceClassification.from_pretrained(
        task["folder"], num_labels=1, dtype=torch.float32
    )
    with torch.no_grad():
        model.score.weight.copy_(torch.tensor(task["head"])[None])
    return RewardTrainer(
        model=model,
        args=RewardConfig(**common(task, len(task["prompts"]), folder)),
        train_dataset=Dataset.from_dict(
            {"chosen_ids": of["chosen"], "rejected_ids": of["rejected"]}
        ),
        processing_class=AutoTokenizer.from_pretrained(task["folder"]),
    )


def text(ids: list[int]) -> str:
    """Words that the tokenizer turns into these ids."""
    return " ".join("<end>" if i == 0 else f"t{i}" for i in ids)


def fused_head(task: Answer) -> dict[str, Any]:
    """The head and the loss in one, in parts; its kernels for the layers need a GPU and stay off."""
    kernels = ("rope", "swiglu", "rms_norm", "cross_entropy", "fused_linear_cross_entropy")
    if not task.get("fused"):
        return {}
    return {"use_liger_kernel": True, "liger_kernel_config": dict.fromkeys(kernels, False)}


def policy(task: Answer) -> Any:
    """The policy, and the tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(task["folder"], dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(task["folder"])


def dpo(task: Answer, folder: str) -> Any:
    """DPOTrainer, the reference's log-probabilities read once, beforehand."""
    model, tokenizer = policy(task)
    rows = {"prompt": [text(ids) for ids in task["prompts"]]}
    rows |= {n: [" " + text(ids) for ids in task[n]] for n in ("chosen", "rejected")}
    return DPOTrainer(
        model=model,
        args=DPOConfig(
            **common(task, len(task["prompts"]), folder),
            **fused_head(task),
            beta=0.1,
            max_length=None,
            precompute_ref_log_probs=not task.get("fused"),
        ),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
    )


def kto(task: Answer, folder: str) -> Any:
    """KTOTrainer, the reference's log-probabilities read once, beforehand."""
    model, tokenizer = policy(task)
    rows = {
        "prompt": [text(ids) for ids in task["prompts"]],
        "completion": [" " + text(ids) for ids in task["answers"]],
        "label": task["is_good"],
    }
    return KTOTrainer(
        model=model,
        args=KTOConfig(
            **common(task, len(task["prompts"]), folder),
            beta=0.1,
            max_length=None,
            precompute_ref_log_probs=True,
        ),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
    )


def even(completion_ids: list[list[int]], **more: Any) -> list[float]:
    """The share of an answer's tokens with an even id."""
    return [sum(i % 2 == 0 for i in ids) / max(1, len(ids)) for ids in completion_ids]


def groups(task: Answer, folder: str) -> Any:
    """GRPOTrainer or RLOOTrainer: answers drawn, judged, and learned from in one update."""
    model, tokenizer = policy(task)
    trainer, config = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}[
        task["case"]
    ]
    per = int(task["answers_per_prompt"])
    settings = common(task, per * len(task["prompts"]), folder)
    settings.pop("train_sampling_strategy")
    return trainer(
        model=model,
        reward_funcs=[even],
        args=config(
            **settings,
            **fused_head(task),
            num_generations=per,
            max_completion_length=int(task["new_tokens"]),
            beta=0.0,
        ),
        train_dataset=Dataset.from_dict({"prompt": [text(ids) for ids in task["prompts"]]}),
        processing_class=tokenizer,
    )


TRAINERS = {
    "sft": sft, "reward": reward, "dpo": dpo, "kto": kto, "grpo": groups, "rloo": groups,
}  # fmt: skip


def main() -> None:
    """Serve one task; see `serve`."""
    channel = Channel()
    task = next(channel.orders())
    torch.set_num_threads(task["threads"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = TRAINERS[task["case"]](task, folder)
        trainer.add_callback(InTurn(channel, trainer))
        trainer.train()


if __name__ == "__main__":
    main()

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
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

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


def main() -> None:
    """Serve one task; see `serve`."""
    channel = Channel()
    task = next(channel.orders())
    torch.set_num_threads(task["threads"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = {"sft": sft, "reward": reward}[task["case"]](task, folder)
        trainer.add_callback(InTurn(channel, trainer))
        trainer.train()


if __name__ == "__main__":
    main()

"""TRL's side of `benchmarks/parity.py`: its trainers, data preparation, collators and losses.

Every order makes the trainer anew. What is drawn is given to GRPO and RLOO in place of their
generation; advantages, log-probabilities of the reference and the loss are the trainers' own.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
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

from serve import Answer, serve
from trl_side import text

Batch = dict[str, Any]


class TRL:
    """One trainer an order."""

    def __init__(self, task: Answer) -> None:
        self.task = task
        self.tokenizer = AutoTokenizer.from_pretrained(task["policy"])
        self.folder = tempfile.TemporaryDirectory()

    def gradient(self, kind: str, told: Answer, out: str) -> Answer:
        """The loss and its gradient, which is written to the file `out` by the weights' names."""
        micro = told.get("micro", 1)
        trainer, batches = getattr(self, f"_{kind}")(told, micro)
        model = trainer.model.train()
        trainer.current_gradient_accumulation_steps = micro
        total = 0.0
        for batch, num_items in batches:
            loss = trainer.compute_loss(model, batch, num_items_in_batch=num_items)
            # What the trainer's own loop divides by where the loss does not.
            scaled = kind in ("grpo", "sft") or micro == 1
            loss = loss if scaled else loss / micro
            loss.backward()
            total += float(loss.detach())
        named = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        save_file({n: g.contiguous() for n, g in named.items()}, out)
        norm = math.sqrt(sum(float((g**2).sum()) for g in named.values()))
        return {"loss": total, "grad_norm": norm}

    def _model(self, name: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.task[name], dtype=torch.float64)

    def _settings(self, told: Answer, rows: int, micro: int) -> dict[str, Any]:
        return {
            "output_dir": self.folder.name,
            "per_device_train_batch_size": rows // micro,
            "gradient_accumulation_steps": micro,
            "bf16": False,
            "gradient_checkpointing": False,
            "use_cpu": True,
            "report_to": [],
            **told.get("config", {}),
        }

    def _sft(self, told: Answer, micro: int) -> tuple[Any, Iterator[tuple[Batch, Any]]]:
        both = list(zip(self.task["prompts"], self.task["chosen"], strict=True))
        data = Dataset.from_dict(
            {
                "input_ids": [p + a for p, a in both],
                "completion_mask": [[0] * len(p) + [1] * len(a) for p, a in both],
            }
        )
        trainer = SFTTrainer(
            model=self._model("policy"),
            args=SFTConfig(**self._settings(told, len(both), micro), completion_only_loss=True),
            train_dataset=data,
            processing_class=self.tokenizer,
        )
        items = torch.tensor(sum(len(a) for _, a in both))
        return trainer, ((batch, items) for batch, _ in self._cut(trainer, micro))

    def _reward(self, told: Answer, micro: int) -> tuple[Any, Iterator[tuple[Batch, Any]]]:
        task = self.task
        ids = {
            f"{name}_ids": [p + a for p, a in zip(task["prompts"], task[name], strict=True)]
            for name in ("chosen", "rejected")
        }
        model = AutoModelForSequenceClassification.from_pretrained(
            task["policy"], num_labels=1, dtype=torch.float64
        )
        with torch.no_grad():
            model.score.weight.copy_(torch.tensor(task["head"])[None])
        tokenizer = AutoTokenizer.from_pretrained(task["policy"])
        if told.get("pad_is_eos"):
            tokenizer.pad_token = tokenizer.eos_token
        trainer = RewardTrainer(
            model=model,
            args=RewardConfig(**self._settings(told, len(task["prompts"]), micro)),
            train_dataset=Dataset.from_dict(ids),
            processing_class=tokenizer,
        )
        return trainer, self._cut(trainer, micro)

    def _dpo(self, told: Answer, micro: int) -> tuple[Any, Iterator[tuple[Batch, Any]]]:
        task = self.task
        data = Dataset.from_dict(
            {
                "prompt": [text(ids) for ids in task["prompts"]],
                "chosen": [" " + text(ids) for ids in task["chosen"]],
                "rejected": [" " + text(ids) for ids in task["rejected"]],
            }
        )
        trainer = DPOTrainer(
            model=self._model("policy"),
            ref_model=self._model("reference"),
            args=DPOConfig(**self._settings(told, len(data), micro)),
            train_dataset=data,
            processing_class=self.tokenizer,
        )
        for mine, theirs in (("prompts", "prompt_ids"), ("chosen", "chosen_ids")):
            assert list(trainer.train_dataset[theirs]) == task[mine]
        return trainer, self._cut(trainer, micro)

    def _kto(self, told: Answer, micro: int) -> tuple[Any, Iterator[tuple[Batch, Any]]]:
        task = self.task
        answers = [
            a if good else b
            for a, b, good in zip(task["chosen"], task["rejected"], task["is_good"], strict=True)
        ]
        data = Dataset.from_dict(
            {
                "prompt": [text(ids) for ids in task["prompts"]],
                "completion": [" " + text(ids) for ids in answers],
                "label": task["is_good"],
            }
        )
        trainer = KTOTrainer(
            model=self._model("policy"),
            ref_model=self._model("reference"),
            args=KTOConfig(**self._settings(told, len(data), micro)),
            train_dataset=data,
            processing_class=self.tokenizer,
        )
        assert list(trainer.train_dataset["completion_ids"]) == answers
        return trainer, self._cut(trainer, micro)

    def _cut(self, trainer: Any, micro: int) -> Iterator[tuple[Batch, Any]]:
        """The trainer's data in its order, by its collator."""
        rows = list(trainer.train_dataset)
        size = len(rows) // micro
        for first in range(0, len(rows), size):
            yield trainer.data_collator(rows[first : first + size]), None

    def _grpo(self, told: Answer, micro: int) -> tuple[Any, Iterator[tuple[Batch, Any]]]:
        return self._group(GRPOTrainer, GRPOConfig, told, micro)

    def _rloo(self, told: Answer, micro: int) -> tuple[Any, Iterator[tuple[Batch, Any]]]:
        return self._group(RLOOTrainer, RLOOConfig, told, micro)

    def _group(
        self, kind: Any, config: Any, told: Answer, micro: int
    ) -> tuple[Any, Iterator[tuple[Batch, Any]]]:
        task = self.task
        answers, num = task["answers"], task["num_groups"]
        per = len(answers) // num
        prompts = [{"prompt": text(ids)} for ids in task["prompts"][:num] for _ in range(per)]
        weights = told.get("weights", [1.0])

        def judge(number: int) -> Any:
            def given(**more: Any) -> list[float]:
                return task["rewards"][number]

            given.__name__ = f"given_{number}"
            return given

        settings = {
            "num_generations": per,
            "max_completion_length": task["max_new_tokens"],
            "reward_weights": weights,
        }
        trainer = kind(
            model=self._model("policy"),
            reward_funcs=[judge(number) for number in range(len(weights))],
            args=config(**self._settings(told, len(answers), micro), **settings),
            train_dataset=Dataset.from_list(prompts[::per]),
            processing_class=self.tokenizer,
        )
        if trainer.beta != 0.0:
            trainer.ref_model.load_state_dict(self._model("reference").state_dict())
            trainer.ref_model.double()
        two = kind is GRPOTrainer
        trainer._generate_single_turn = lambda *args, **more: (answers, None) if two else answers
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = micro
        whole = trainer._generate_and_score_completions(prompts)
        assert whole["completion_ids"][0, : len(answers[0])].tolist() == answers[0]
        if "old" in told:
            old = torch.tensor(told["old"]).double()
            if two:
                whole["old_per_token_logps"] = old
            else:
                whole["old_logps"] = (old * whole["completion_mask"]).sum(1)
        size = len(answers) // micro
        return trainer, (
            (_rows(whole, first, first + size, len(answers)), None)
            for first in range(0, len(answers), size)
        )


def _rows(batch: Batch, first: int, last: int, num: int) -> Batch:
    """Some rows of what has a row for each answer."""
    return {
        name: x[first:last] if isinstance(x, torch.Tensor) and x.ndim and len(x) == num else x
        for name, x in batch.items()
    }


if __name__ == "__main__":
    serve(TRL, "trl", "transformers", "torch")

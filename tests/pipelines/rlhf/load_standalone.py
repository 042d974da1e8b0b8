"""Reads a finished run with `transformers` and nothing of ours; run by test_rlhf_job.py.

    python load_standalone.py RUN OUT.safetensors

Writes log-probabilities of the run's last answers under the saved policy, and their scores under
the saved reward model, one answer at a time and as one padded batch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)


@torch.no_grad()
def main(run: Path, out: Path) -> None:
    rows = json.loads((run / "answers.json").read_text())["answers"]
    temperature = yaml.safe_load((run / "config.yaml").read_text())["sampling"]["temperature"]
    arrays = load_file(run / "stages" / "answers_after.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    policy = AutoModelForCausalLM.from_pretrained(run / "model").eval()
    scorer = AutoModelForSequenceClassification.from_pretrained(run / "reward_model").eval()
    assert scorer.config.num_labels == 1
    logp = torch.zeros(arrays["there"].shape)
    sequences = []
    for i, row in enumerate(rows):
        turns = [{"role": "user", "content": row["prompt"]}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = arrays["token"][i][arrays["there"][i]].tolist()
        ids = torch.tensor([[*prompt, *answer]])
        logits = policy(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        scores = (logits / temperature).log_softmax(-1)
        drawn = scores.gather(1, torch.tensor(answer)[:, None])[:, 0]
        logp[i, : len(answer)] = drawn
        sequences.append(ids[0])
    score = torch.cat([scorer(input_ids=ids[None]).logits[:, 0] for ids in sequences])
    padder = AutoTokenizer.from_pretrained(run / "reward_model")
    batch = padder.pad({"input_ids": [ids.tolist() for ids in sequences]}, return_tensors="pt")
    padded = scorer(**batch).logits[:, 0]
    save_file({"logp": logp, "score": score, "score_padded": padded.contiguous()}, out)


main(Path(sys.argv[1]), Path(sys.argv[2]))
ours = [name for name in sys.modules if name.split(".")[0] == "plaudit"]
assert not ours, ours

"""`transformers.generate`'s side of `benchmarks/lm.py`."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM

from serve import Answer, serve


class Decode:
    """Sampling at temperature 1 over the whole vocabulary, to the full length, default cache."""

    def __init__(self, task: Answer) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(task["folder"], dtype=torch.float32)
        self.token = torch.tensor(task["prompts"])
        self.new_tokens = int(task["new_tokens"])

    @torch.no_grad()
    def step(self, seed: int) -> Answer:
        """One answer to each prompt."""
        torch.manual_seed(seed)
        out = self.model.generate(
            self.token,
            attention_mask=torch.ones_like(self.token),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=self.new_tokens,
            min_new_tokens=self.new_tokens,
            pad_token_id=0,
        )
        assert out.shape[1] == self.token.shape[1] + self.new_tokens
        return {"tokens": len(out) * self.new_tokens}

    @torch.no_grad()
    def score(self, rows: list[list[int]]) -> Answer:
        """Log-probabilities of the tokens of each row but its first."""
        scores = []
        for row in rows:
            logits = self.model(torch.tensor([row])).logits[0, :-1]
            token = torch.tensor(row[1:])[:, None]
            scores.append(logits.log_softmax(-1).gather(-1, token)[:, 0].tolist())
        return {"logp": scores}


if __name__ == "__main__":
    serve(Decode, "transformers", "torch")

"""CTranslate2's side of `benchmarks/lm.py`: sampling, and scores of given rows.

It takes words, not ids; the benchmark's tokenizer has a word for every id.
"""

from __future__ import annotations

import tempfile

import ctranslate2
from transformers import AutoTokenizer

from serve import Answer, serve


class Decode:
    """Sampling at temperature 1 over the whole vocabulary, to the full length."""

    def __init__(self, task: Answer) -> None:
        self.words = AutoTokenizer.from_pretrained(task["folder"]).convert_ids_to_tokens
        with tempfile.TemporaryDirectory() as folder:
            converter = ctranslate2.converters.TransformersConverter(task["folder"])
            converter.convert(folder, quantization=task["precision"], force=True)
            self.generator = ctranslate2.Generator(
                folder,
                device="cpu",
                compute_type=task["precision"],
                inter_threads=1,
                intra_threads=task["threads"],
            )
        self.prompts = [self.words(ids) for ids in task["prompts"]]
        self.new_tokens = int(task["new_tokens"])

    def step(self, seed: int) -> Answer:
        """One answer to each prompt."""
        ctranslate2.set_random_seed(seed + 1)
        out = self.generator.generate_batch(
            self.prompts,
            max_batch_size=len(self.prompts),
            min_length=self.new_tokens,
            max_length=self.new_tokens,
            sampling_topk=0,
            sampling_temperature=1.0,
            include_prompt_in_result=False,
        )
        assert all(len(o.sequences_ids[0]) == self.new_tokens for o in out)
        return {"tokens": len(out) * self.new_tokens}

    def score(self, rows: list[list[int]]) -> Answer:
        """Log-probabilities of the tokens of each row but its first."""
        found = self.generator.score_batch([self.words(row) for row in rows])
        return {"logp": [one.log_probs[-len(r) + 1 :] for one, r in zip(found, rows, strict=True)]}


if __name__ == "__main__":
    serve(Decode, "ctranslate2")

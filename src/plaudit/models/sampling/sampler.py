"""Answers drawn from a causal language model, with the log-probability of every drawn token.

    u[i, t]   from a counter-based generator keyed by (seed, row i)
    p         softmax(logits / temperature) over the tokens that top-k and top-p keep
    token     the first whose cumulative p exceeds u

Each prompt is read once and shared by its answers; finished rows leave the batch. What a row draws
depends on nothing but its prompt, the weights, the seed and its number: batch size, waves and
other rows change logits by float rounding at most. Llama-shaped models step through `fused`
(chosen by `fused.fits`), any other causal model of transformers through `hosted`. Left out:
refilling a batch before its wave ends, paged caches, speculative drafts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plaudit.models.sampling import fused
from plaudit.models.sampling.draw import draw, uniforms
from plaudit.records.errors import UserError
from plaudit.records.sampling import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from plaudit.models.sampling.stepping import Answers

# Finished rows are dropped once they have cost this many steps of the whole batch: dropping copies
# every key and value, which takes about as long as half a step.
_IDLE_STEPS = 0.5


@dataclass(frozen=True)
class Sampled:
    """Answers to P prompts: row i of B answers prompt i // num_answers.

    `answer` [B, T] holds token ids, the pad id after the end, T the longest drawn; `mask` [B, T]
    is true on drawn tokens, the stop token included; `logp` [B, T] are their log-probabilities
    under the distribution they were drawn from, 0 off the mask; `terminated` [B] is true where a
    stop token was drawn. With a split, `prompt_hidden` [P, L, H] (right-padded) and
    `answer_hidden` [B, T, H] are the inputs of decoder layer `split` for every token, the last
    one included, and 0 elsewhere.
    """

    answer: Tensor
    mask: Tensor
    logp: Tensor
    terminated: Tensor
    prompt_hidden: Tensor | None
    answer_hidden: Tensor | None


class Sampler:
    """Draws answers from a model whose weights may change between calls.

    `stop_ids` end an answer; `split` asks for hidden states at the input of that decoder layer;
    `max_rows` bounds the rows decoded together (a prompt's answers stay together up to it).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        stop_ids: Collection[int],
        pad_id: int,
        split: int | None = None,
        max_rows: int | None = None,
    ) -> None:
        num_layers = int(model.config.num_hidden_layers)
        if split is not None and not 0 <= split < num_layers:
            raise UserError(
                f"split is {split}, but the model has {num_layers} layers: "
                f"give a number from 0 to {num_layers - 1}"
            )
        if max_rows is not None and max_rows < 1:
            raise UserError(f"max_rows is {max_rows}: give at least 1, or None for no bound")
        self.model = model
        self.stop_ids = tuple(sorted(stop_ids))
        self.pad_id = pad_id
        self.split = split
        self.max_rows = max_rows
        self.decoder: Any  # SteppingDecoder of whichever prefix type
        if fused.fits(model):
            self.decoder = fused.FusedDecoder(model, split)
        else:
            # Here, as transformers takes a second to load.
            from plaudit.models.sampling.hosted import HostedDecoder

            self.decoder = HostedDecoder(model, split)

    @torch.no_grad()  # not inference_mode: the trainer differentiates through kept hidden states
    def generate(
        self, prompts: Sequence[Sequence[int]], *, num_answers: int, sampling: Sampling, seed: int
    ) -> Sampled:
        """`num_answers` answers to each prompt of token ids. Dropout is off while drawing.

        Raises `UserError` for an empty prompt, an unknown token id, or a prompt that leaves too
        little of the model's context for `max_new_tokens`.
        """
        self._check(prompts, num_answers, sampling, seed)
        with self.drawing():
            return self._generate(prompts, num_answers, sampling, seed)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """The decoder has the weights as they are now, and dropout is off."""
        training = self.model.training
        self.model.eval()
        try:
            self.decoder.refresh()
            yield
        finally:
            self.model.train(training)

    def release(self) -> None:
        """Give up the copies of weights that are kept between calls for the speed of the next."""
        self.decoder.release()

    def _generate(
        self, prompts: Sequence[Sequence[int]], num_answers: int, sampling: Sampling, seed: int
    ) -> Sampled:
        out = Sheet(self, len(prompts) * num_answers, sampling)
        prompt_hidden: Tensor | None = None
        read: Any = None
        for wave_prompts, rows in _waves(prompts, num_answers, self.max_rows):
            if read is None or read[0] != wave_prompts:
                prefix = self.decoder.prefill([prompts[p] for p in wave_prompts])
                read = (wave_prompts, prefix)
                if prefix.hidden is not None:
                    if prompt_hidden is None:
                        shape = (len(prompts), max(map(len, prompts)), prefix.hidden.shape[2])
                        prompt_hidden = prefix.hidden.new_zeros(shape)
                    prompt_hidden[wave_prompts, : prefix.hidden.shape[1]] = prefix.hidden
            place = {p: i for i, p in enumerate(wave_prompts)}
            group = [place[row // num_answers] for row in rows]
            answers = self.decoder.start(read[1], group, sampling.max_new_tokens)
            logits = read[1].logits[torch.tensor(group, device=read[1].logits.device)]
            u = uniforms(seed, rows, sampling.max_new_tokens)
            self.answer(answers, logits, torch.tensor(rows), u, sampling, out)
        return out.finished(prompt_hidden)

    def answer(
        self,
        answers: Answers,
        logits: Tensor,
        rows: Tensor,
        u: Tensor,
        sampling: Sampling,
        out: Sheet,
        *,
        drops: bool = True,
    ) -> None:
        """Draw the answers of one wave into `out`; `rows` are their numbers there.

        A row whose last token is drawn stays for one more feed when hidden states are kept, as
        that token needs its own; with `drops` false all rows stay to the end, done or not.
        """
        device = logits.device
        rows, u = rows.to(device), u.to(device)
        stops = torch.tensor(self.stop_ids, dtype=torch.long, device=device)
        done = torch.zeros(len(rows), dtype=torch.bool, device=device)
        idle = 0.0
        for t in range(sampling.max_new_tokens):
            token, logp = draw(logits, u[:, t], sampling)
            stopped = torch.isin(token, stops)
            out.write(t, rows, token, logp, stopped, ~done)
            fed = done.clone() if out.keeps_hidden else done | stopped
            done |= stopped
            if bool(done.all()) or t + 1 == sampling.max_new_tokens:
                break
            num_fed = int(fed.sum())
            idle += num_fed / len(rows)
            if drops and num_fed and idle >= _IDLE_STEPS:
                idle = 0.0
                kept = (~fed).nonzero()[:, 0]
                answers.keep(kept)
                rows, u, done, token = rows[kept], u[kept], done[kept], token[kept]
            logits, hidden = answers.step(token)
            out.keep_hidden(t, rows, hidden)
        if out.keeps_hidden:
            out.keep_hidden(t, rows, answers.trunk(token))

    def _check(
        self, prompts: Sequence[Sequence[int]], num_answers: int, sampling: Sampling, seed: int
    ) -> None:
        if not prompts:
            raise UserError("there are no prompts to answer")
        if num_answers < 1:
            raise UserError(f"num_answers is {num_answers}: ask for at least 1")
        if not 0 <= seed < 2**64:
            raise UserError(f"seed is {seed}: give a whole number from 0 to 2**64 - 1")
        vocabulary = self.model.get_input_embeddings().weight.shape[0]
        context = getattr(self.model.config, "max_position_embeddings", None)
        for i, prompt in enumerate(prompts):
            if len(prompt) == 0:
                raise UserError(f"prompt {i} has no tokens: give at least one, such as BOS")
            if not 0 <= min(prompt) <= max(prompt) < vocabulary:
                raise UserError(
                    f"prompt {i} holds a token id outside 0 … {vocabulary - 1}: "
                    "encode it with the model's own tokenizer"
                )
            if context is not None and len(prompt) + sampling.max_new_tokens > context:
                raise UserError(
                    f"prompt {i} has {len(prompt)} tokens and max_new_tokens is "
                    f"{sampling.max_new_tokens}, together more than the model's context of "
                    f"{context}: shorten the prompt or ask for fewer tokens"
                )


class Sheet:
    """The tensors that waves write their answers into."""

    def __init__(
        self, sampler: Sampler, num_rows: int, sampling: Sampling, *, keeps_hidden: bool = True
    ) -> None:
        self.keeps_hidden = keeps_hidden and sampler.split is not None
        device = sampler.model.device
        shape = (num_rows, sampling.max_new_tokens)
        self.answer = torch.full(shape, sampler.pad_id, dtype=torch.long, device=device)
        self.mask = torch.zeros(shape, dtype=torch.bool, device=device)
        double = sampler.model.dtype == torch.float64
        dtype = torch.float64 if double else torch.float32
        self.logp = torch.zeros(shape, dtype=dtype, device=device)
        self.terminated = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self.hidden: Tensor | None = None

    def write(
        self, t: int, rows: Tensor, token: Tensor, logp: Tensor, stopped: Tensor, live: Tensor
    ) -> None:
        """Token t of the rows that are live."""
        rows = rows[live]
        self.answer[rows, t] = token[live]
        self.logp[rows, t] = logp[live]
        self.mask[rows, t] = True
        self.terminated[rows] = stopped[live]

    def keep_hidden(self, t: int, rows: Tensor, hidden: Tensor | None) -> None:
        """The trunk's output for token t, where there is one."""
        if hidden is None or not self.keeps_hidden:
            return
        if self.hidden is None:
            self.hidden = hidden.new_zeros((*self.mask.shape, hidden.shape[-1]))
        self.hidden[rows, t] = hidden * self.mask[rows, t, None]

    def finished(self, prompt_hidden: Tensor | None) -> Sampled:
        longest = int(self.mask.sum(1).max())
        return Sampled(
            answer=self.answer[:, :longest].clone(),
            mask=self.mask[:, :longest].clone(),
            logp=self.logp[:, :longest].clone(),
            terminated=self.terminated,
            prompt_hidden=prompt_hidden,
            answer_hidden=None if self.hidden is None else self.hidden[:, :longest].clone(),
        )


def _waves(
    prompts: Sequence[Sequence[int]], num_answers: int, max_rows: int | None
) -> Iterator[tuple[list[int], list[int]]]:
    """Prompts and row numbers decoded together; prompts of similar length where waves are asked.

    A prompt with more answers than `max_rows` takes several waves of its own.
    """
    if max_rows is None:
        yield list(range(len(prompts))), list(range(len(prompts) * num_answers))
        return
    order = sorted(range(len(prompts)), key=lambda p: len(prompts[p]))
    per_wave = max(1, max_rows // num_answers)
    for start in range(0, len(order), per_wave):
        chosen = sorted(order[start : start + per_wave])
        rows = [p * num_answers + a for p in chosen for a in range(num_answers)]
        for first in range(0, len(rows), max_rows):
            yield chosen, rows[first : first + max_rows]

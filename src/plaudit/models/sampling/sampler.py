"""Answers drawn from a causal language model, with the log-probability of every drawn token.

    u[i, t]   from a counter-based generator keyed by (seed, row i)
    p         softmax(logits / temperature) over the tokens that top-k, min-p and top-p keep
    token     the first whose cumulative p exceeds u

Each prompt is read once and shared by its answers; finished rows leave the batch. What a row draws
depends on nothing but its prompt, the weights, the seed and its number: batch size, waves and
other rows change logits by float rounding at most. Llama-shaped models step through `fused`
(chosen by `fused.fits`), any other causal model of transformers through `hosted`.
Where rows can be moved for nothing (`KernelAnswers`), those that wait take the places of those that
have finished, and with several threads each thread steps rows of its own: threads that never wait
for each other. Left out: paged caches, speculative drafts.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plaudit.models.sampling import fused
from plaudit.models.sampling.byte_decoder import ByteDecoder, check_bytes
from plaudit.models.sampling.draw import draw, uniforms
from plaudit.models.sampling.kernel_answers import KernelAnswers
from plaudit.records.errors import UserError
from plaudit.records.sampling import Precision, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from plaudit.models.sampling.stepping import Answers

MOST_ROWS = 64
"""Rows that a thread decodes together where nothing else is said and rows can wait: products gain
no more from further ones, and each has its keys and values."""

MOST_PROMPTS = 256
"""Prompts read before the first of their answers is drawn, where rows can wait."""

ROWS_A_THREAD = 32
"""With fewer, threads share the products of a step; from here on each steps rows of its own."""


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
    With `precision` "int8" steps multiply bytes (`byte_decoder`).
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        stop_ids: Collection[int],
        pad_id: int,
        split: int | None = None,
        max_rows: int | None = None,
        precision: Precision = "float32",
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
        if precision != "float32":
            check_bytes(model, split, precision)
            self.decoder = ByteDecoder(model, split)
        elif fused.fits(model):
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
        refills = self.decoder.refills
        waves = _waves(prompts, num_answers, None if refills else self.max_rows)
        if refills and len(prompts) > MOST_PROMPTS:
            waves = _waves(prompts, num_answers, MOST_PROMPTS * num_answers)
        for wave_prompts, rows in waves:
            if read is None or read[0] != wave_prompts:
                prefix = self.decoder.prefill([prompts[p] for p in wave_prompts])
                read = (wave_prompts, prefix)
                if prefix.hidden is not None:
                    if prompt_hidden is None:
                        shape = (len(prompts), max(map(len, prompts)), prefix.hidden.shape[2])
                        prompt_hidden = prefix.hidden.new_zeros(shape)
                    prompt_hidden[wave_prompts, : prefix.hidden.shape[1]] = prefix.hidden
                    out.expect_hidden(prefix.hidden)
            place = {p: i for i, p in enumerate(wave_prompts)}
            group = [place[row // num_answers] for row in rows]
            self._answer_all(read[1], group, rows, sampling, seed, out)
        return out.finished(prompt_hidden)

    def _answer_all(
        self,
        prefix: Any,
        group: Sequence[int],
        rows: Sequence[int],
        sampling: Sampling,
        seed: int,
        out: Sheet,
    ) -> None:
        """Draw the answers of one wave, in as many threads as pay."""
        num_threads = torch.get_num_threads() if self.decoder.refills else 1
        num_parts = max(1, min(num_threads, len(rows) // ROWS_A_THREAD))
        most = len(rows)
        if self.decoder.refills:
            most = max(1, self.max_rows // num_parts) if self.max_rows else MOST_ROWS
        halted = threading.Event()

        def draw_part(begin: int, end: int) -> None:
            mine, now = rows[begin:end], min(most, end - begin)
            answers = self.decoder.start(
                prefix, group[begin : begin + now], sampling.max_new_tokens
            )
            logits = prefix.logits[torch.tensor(group[begin:end], device=prefix.logits.device)]
            u = uniforms(seed, mine, sampling.max_new_tokens)
            waiting = Waiting(
                torch.tensor(mine[now:]), group[begin + now : end], logits[now:], u[now:]
            )
            drawn = torch.tensor(mine[:now]), u[:now]
            self.answer(
                answers, logits[:now], *drawn, sampling, out, waiting=waiting, halted=halted
            )

        ends = [len(rows) * i // num_parts for i in range(num_parts + 1)]
        if num_parts == 1:
            draw_part(0, len(rows))
            return
        with _one_thread_each(num_threads), ThreadPoolExecutor(num_parts) as pool:

            def alone(begin: int, end: int) -> None:
                torch.set_num_threads(1)
                with torch.no_grad():
                    draw_part(begin, end)

            parts = [pool.submit(alone, *ends[i : i + 2]) for i in range(num_parts)]
            try:
                for part in parts:
                    part.result()
            except BaseException:  # Ctrl-C among them: the others stop at their next token
                halted.set()
                raise

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
        waiting: Waiting | None = None,
        halted: threading.Event | None = None,
    ) -> None:
        """Draw answers into `out`; `rows` are their numbers there, and `waiting` those of rows that
        begin when others have finished.

        A row whose last token is drawn stays for one more feed when hidden states are kept, as
        that token needs its own; with `drops` false all rows stay to the end, done or not.
        """
        device = logits.device
        rows, u = rows.to(device), u.to(device)
        stops = torch.tensor(self.stop_ids, dtype=torch.long, device=device)
        done = torch.zeros(len(rows), dtype=torch.bool, device=device)
        at = torch.zeros(len(rows), dtype=torch.long, device=device)
        last, idle = sampling.max_new_tokens - 1, 0.0
        while halted is None or not halted.is_set():
            # A row that was done before is drawn again for nothing: its place may be one too far.
            drawn_at = at.clamp(max=last)
            token, logp = draw(logits, u.gather(1, drawn_at[:, None])[:, 0], sampling)
            stopped = torch.isin(token, stops)
            out.write(drawn_at, rows, token, logp, stopped, ~done)
            over = stopped | (at >= last)
            fed = done if out.keeps_hidden else done | over
            done = done | over
            num_waiting = 0 if waiting is None else len(waiting)
            if bool(done.all()) and not num_waiting:
                break
            num_fed = int(fed.sum())
            idle += num_fed / len(rows)
            if drops and num_fed and (num_fed == len(rows) or idle >= answers.idle_steps):
                idle = 0.0
                kept = (~fed).nonzero()[:, 0]
                answers.keep(kept)
                rows, u, done, token, at = rows[kept], u[kept], done[kept], token[kept], at[kept]
            if len(rows):
                logits, hidden = answers.step(token)
                out.keep_hidden(at, rows, hidden)
            at = at + 1
            if num_waiting and waiting is not None and num_fed:
                new = waiting.take(num_fed)
                assert isinstance(answers, KernelAnswers), "rows of other decoders begin together"
                answers.add(new.group)
                rows, u = torch.cat([rows, new.rows.to(device)]), torch.cat([u, new.u.to(device)])
                logits = torch.cat([logits[: len(at)], new.logits])
                done = torch.cat([done, done.new_zeros(len(new))])
                at = torch.cat([at, at.new_zeros(len(new))])
        else:
            return
        if out.keeps_hidden:
            if bool(fed.any()):  # a last token is fed once: there is no place for it again
                kept = (~fed).nonzero()[:, 0]
                answers.keep(kept)
                rows, token, at = rows[kept], token[kept], at[kept]
            out.keep_hidden(at, rows, answers.trunk(token))

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
        self, at: Tensor, rows: Tensor, token: Tensor, logp: Tensor, stopped: Tensor, live: Tensor
    ) -> None:
        """The token at place `at` of each row that is live."""
        rows, at = rows[live], at[live]
        self.answer[rows, at] = token[live]
        self.logp[rows, at] = logp[live]
        self.mask[rows, at] = True
        self.terminated[rows] = stopped[live]

    def expect_hidden(self, like: Tensor) -> None:
        """Make room for hidden states of this width, where they are kept."""
        if self.keeps_hidden and self.hidden is None:
            self.hidden = like.new_zeros((*self.mask.shape, like.shape[-1]))

    def keep_hidden(self, at: Tensor, rows: Tensor, hidden: Tensor | None) -> None:
        """The trunk's output for the tokens at `at`, where there is one."""
        if hidden is None or self.hidden is None:
            return
        real = at < self.mask.shape[1]  # a row that was done goes on idly
        rows, at, hidden = rows[real], at[real], hidden[real]
        self.hidden[rows, at] = hidden * self.mask[rows, at, None]

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


@dataclass
class Waiting:
    """Rows that have not begun: their numbers, prompts, first logits [n, V] and numbers to draw by."""

    rows: Tensor
    group: Sequence[int]
    logits: Tensor
    u: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, most: int) -> Waiting:
        """The first of them, which wait no longer."""
        cut = [(x[:most], x[most:]) for x in (self.rows, self.group, self.logits, self.u)]
        self.rows, self.group, self.logits, self.u = (rest for _, rest in cut)  # type: ignore[assignment]
        return Waiting(*(taken for taken, _ in cut))  # type: ignore[arg-type]


@contextlib.contextmanager
def _one_thread_each(number: int) -> Iterator[None]:
    """One thread to a product meanwhile; afterwards `number` again."""
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)


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

"""A language model cut into one frozen trunk and the tops of its roles, and a policy over it.

The trunk's hidden states of a rollout are computed once: the sampler keeps them as it generates,
and every role and every epoch reads them. Trained in all its layers (`split` 0) a model has no
trunk, and each role runs the whole decoder. Batches are cut into micro-batches by their tokens;
since losses carry their denominators, the cut changes nothing but memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from plaudit.engine.agreement import gap, plain_logprobs, probe_batch, stepped_logprobs, tolerance
from plaudit.engine.memory import keep_freed_memory
from plaudit.engine.role import HeadDistribution, Role, spread
from plaudit.engine.trunk_states import TrunkStates
from plaudit.models.backbone import (
    Decoder,
    check_split,
    gather_places,
    num_layers,
    top_of,
    trunk_of,
)
from plaudit.models.heads import LMHead
from plaudit.models.layout import Layout, micro_layouts
from plaudit.models.sampling.fused import FusedDecoder
from plaudit.models.sampling.sampler import Sampler
from plaudit.records.errors import UserError
from plaudit.records.sampling import Precision
from plaudit.records.types import Trajectories

if TYPE_CHECKING:
    from plaudit.models.formats.load import LanguageModel

MAX_TOKENS = 640
"""Places in a micro-batch: about 0.2 GB of activations for six layers of a 135M model. Products of
more rows at once are no faster on a processor."""

MAX_ROW = 2048
"""Places in a packed row: its mask, which grows with the square, takes 16 MB."""


class SharedBackbone:
    """A language model cut below its `num_top_layers`, and what its roles share.

    When it is made, the trainer's and the sampler's log-probabilities are compared with the
    model's own (`agreement`); `longest` is the longest conversation, in tokens, that the caller
    will have. With a `sampler_precision` of int8 answers are drawn from a rounded policy, and their
    log-probabilities are its. Raises UserError for a model that cannot be cut there, or on which
    they differ.
    """

    def __init__(
        self,
        lm: LanguageModel,
        *,
        num_top_layers: int,
        max_tokens: int = MAX_TOKENS,
        longest: int | None = None,
        sampler_precision: Precision = "float32",
    ) -> None:
        total = num_layers(lm.model)
        check_layers(num_top_layers, total)
        keep_freed_memory()
        self.lm = lm
        self.split = total - num_top_layers
        check_split(lm.model, self.split)
        self.max_tokens = max_tokens
        self.pad_id = lm.codec.pad_id
        self.trunk: Decoder | None = trunk_of(lm.model, self.split) if self.split else None
        self.top = top_of(lm.model, self.split)
        self.head = LMHead(lm.model)
        # A head tied to a frozen embedding stays frozen; with every layer trained it is trained.
        lm.model.requires_grad_(self.split == 0)
        self.top.requires_grad_(True)
        self.states = TrunkStates()
        self.draws_rounded = sampler_precision != "float32"
        self.sampler = Sampler(
            lm.model,
            stop_ids=lm.codec.stop_ids,
            pad_id=lm.codec.pad_id,
            # States of rounded products are not the trunk's: it is run again over what was drawn.
            split=None if self.draws_rounded else self.split or None,
            precision=sampler_precision,
        )
        self.is_packed = True
        self._settle(probe_batch(lm, longest=longest))

    @property
    def width(self) -> int:
        """Size of a decoder's output."""
        return self.head.width

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        dtype: torch.dtype = self.lm.model.dtype
        return dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.lm.model.device
        return device

    def close(self) -> None:
        """Give back the sampler's copies of weights and all kept states."""
        self.sampler.release()
        self.states.clear()

    def copied(self) -> tuple[Decoder, LMHead]:
        """A top and a head that no training of this model's own will move.

        The head of a cut model is frozen and shared; one of a model trained whole is copied with
        it, tied where it is tied.
        """
        if self.split:
            return copy.deepcopy(self.top), self.head
        whole = copy.deepcopy(self.lm.model)
        return top_of(whole, 0), LMHead(whole)

    def inputs(self, layout: Layout, batch: Trajectories) -> Tensor:
        """What a top takes: token ids, or the trunk's hidden states (kept ones if there are)."""
        if self.trunk is None:
            return layout.token
        kept = self.states.find(layout, batch)
        return _untrained(self.trunk, layout) if kept is None else kept

    def layouts(self, batch: Trajectories) -> Iterator[Layout]:
        """The batch in micro-batches, where the model is."""
        return micro_layouts(
            batch.to(self.device),
            pad_id=self.pad_id,
            max_tokens=self.max_tokens,
            max_row=MAX_ROW,
            one_each=not self.is_packed,
        )

    def remember(self, name: str, batch: Trajectories) -> None:
        """Keep the trunk's states of data that is read many times, until `states.drop(name)`."""
        if self.trunk is None:
            return
        for layout in self.layouts(batch):
            if self.states.find(layout, batch) is None:
                self.states.put_layout(name, batch, layout, _untrained(self.trunk, layout))

    def _settle(self, probe: Trajectories) -> None:
        """Find the rows and the decoder that compute what the model computes, or refuse it."""

        name, close = type(self.lm.model).__name__, tolerance(self.dtype)
        wanted = _tried(name, "own forward pass", lambda: plain_logprobs(self.lm.model, probe))
        policy = Policy(self, self.top, self.head)
        apart, why = float("inf"), ""
        for packed in (True, False):
            self.is_packed = packed
            try:
                apart = gap(policy.logprobs(probe), wanted, probe.chosen)
                _differentiate(policy, probe)
            except Exception as error:  # whatever its own code says to a mask or a product of ours
                apart = float("inf")
                why = f" ({_first_line(error)})"
            if apart <= close:
                break
        else:
            raise UserError(_parted(name, "trained", apart, why, self.split))
        from plaudit.models.sampling.hosted import HostedDecoder  # transformers: loaded by now

        apart, why = float("inf"), ""
        decoders: tuple[Any, ...] = (
            self.sampler.decoder,
            HostedDecoder(self.lm.model, self.sampler.split),
        )
        if self.draws_rounded:  # the same steps must be exact where nothing is rounded
            decoders = (FusedDecoder(self.lm.model, None),)
        for decoder in decoders:
            try:
                apart = gap(stepped_logprobs(decoder, probe), wanted, probe.chosen)
            except Exception as error:  # a cache of another kind than the loop can copy
                apart = float("inf")
                why = f" ({_first_line(error)})"
            if apart <= close:
                if not self.draws_rounded:
                    self.sampler.decoder = decoder
                break
        else:
            raise UserError(_parted(name, "sampled", apart, why, 0))
        self.sampler.release()


def check_layers(num_top_layers: int, total: int) -> None:
    """UserError unless a model of `total` layers has so many to train."""
    if not 1 <= num_top_layers <= total:
        raise UserError(
            f"num_top_layers is {num_top_layers}, but this model has {total} layers: "
            f"give a number from 1 to {total}"
        )


class Policy(Role):
    """A top with an LM head: log-probabilities of chosen tokens under their batch's `sampling`."""

    gives: ClassVar[tuple[str, ...]] = ("logp", "entropy", "distribution", "hidden")
    backbone: SharedBackbone

    def __init__(self, backbone: SharedBackbone, top: Decoder, head: LMHead) -> None:
        super().__init__(backbone)
        self.top = top
        self.head = head

    def statistics(
        self, layout: Layout, batch: Trajectories, needs: Sequence[str]
    ) -> dict[str, Any]:
        """Of the layout's chosen tokens: [b, T] each, T of the batch, 0 elsewhere. The LM head is
        applied to the places that count and no others."""
        num_steps = batch.chosen.shape[1]
        hidden = self.top(self.backbone.inputs(layout, batch), layout)
        hidden = gather_places(hidden, layout.before[layout.chosen])
        found: dict[str, Any] = {}
        if "logp" in needs or "entropy" in needs:
            token = layout.answer[layout.chosen]
            logp, entropy = self.head.token_stats(hidden, token, batch.sampling)
            found["logp"] = spread(logp, layout, num_steps)
            found["entropy"] = spread(entropy, layout, num_steps)
        if "distribution" in needs:
            found["distribution"] = HeadDistribution(self.head, hidden, layout, num_steps)
        if "hidden" in needs:
            found["hidden"] = spread(hidden, layout, num_steps)
        return found

    def logprobs(self, batch: Trajectories) -> Tensor:
        """Log-probabilities [B, T], 0 off the chosen tokens."""
        return self.told(batch, "logp")


@torch.no_grad()
def _untrained(trunk: Decoder, layout: Layout) -> Tensor:
    """The frozen trunk's states [R, L, H] of a layout."""
    hidden: Tensor = trunk(layout.token, layout)
    return hidden


def _differentiate(policy: Policy, batch: Trajectories) -> None:
    """One backward pass, which a model's own code can fail where its forward pass does not."""
    for layout in policy.backbone.layouts(batch):
        logp = policy.statistics(layout, batch, ("logp",))["logp"]
        parameters = [p for p in policy.top.parameters() if p.requires_grad]
        torch.autograd.grad(logp.sum(), parameters, allow_unused=True)


def _tried(name: str, what: str, run: Callable[[], Tensor]) -> Tensor:
    try:
        return run()
    except Exception as error:  # code of a model's family fails in ways of its own
        raise UserError(
            f"{name} cannot be used: its {what} fails ({_first_line(error)})"
        ) from error


def _parted(name: str, done: str, apart: float, why: str, split: int) -> str:
    found = (
        f"fails{why}"
        if apart == float("inf")
        else f"differs from its own by {apart:.2g} nats a token or that share of them"
    )
    cure = "; train all of its layers, or use another model" if split else "; use another model"
    return f"{name} cannot be {done} exactly: its log-probability here {found}{cure}"


def _first_line(error: Exception) -> str:
    lines: list[Any] = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__

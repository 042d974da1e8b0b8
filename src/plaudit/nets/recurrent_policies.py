"""A policy that remembers: a GRU over what was seen, then a small net, then an action head.

Acting needs to know where episodes begin, so a `Memory` goes along: the state of each of the rows
that act side by side, and which of them have just begun.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plaudit.nets.actions import ActorHead, head_for, head_from_facts
from plaudit.nets.control_nets import Net, arrays, load_arrays, network, network_from_facts
from plaudit.nets.mlp import Activation
from plaudit.nets.one_hot import Features
from plaudit.nets.recurrent import F32, GRU, gru_from_facts
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Saved

Array = NDArray[Any]


class Memory:
    """States [B, H], and `starts` [B]: true where the next observation begins an episode."""

    def __init__(self, num_envs: int, num_hidden: int) -> None:
        self.hidden: F32 = np.zeros((num_envs, num_hidden), np.float32)
        self.starts: NDArray[np.bool_] = np.ones(num_envs, np.bool_)

    def state(self) -> Saved:
        """Both, copied."""
        return {"hidden": self.hidden.copy(), "starts": self.starts.copy()}, {}

    def restore(self, saved: Saved) -> None:
        """Takes them back."""
        self.hidden, self.starts = saved[0]["hidden"].copy(), saved[0]["starts"].copy()


class RecurrentNet(nn.Module):
    """A GRU and a net on its state: outputs [T, B, num_out] of observations [T, B, D]."""

    def __init__(self, obs_spec: ObsSpec, core: GRU, net: Net, *, bars: bool) -> None:
        """With `bars` outputs are −inf for actions that the observation's mask does not allow."""
        super().__init__()
        self.obs_spec, self.core, self.net = obs_spec, core, net
        self.num_barred = obs_spec.num_barred if bars else 0
        self._features: Features | None = None
        if any(piece.kind != "vector" for piece in obs_spec.pieces):
            self._features = Features(obs_spec)

    def forward(self, obs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs [T, B, num_out] and states [T, B, H] of one stretch of an episode in each row.

        `hidden` [B, H] was carried into the first step: zeros where the episode begins there.
        """
        nowhere = torch.zeros(obs.shape[:2], dtype=torch.bool)
        seen = obs if self._features is None else self._features.one_hot_tensor(obs)
        states, _ = self.core(seen, hidden, nowhere)
        out = self.net(states.flatten(0, 1)).unflatten(0, states.shape[:2])
        if self.num_barred:
            out = out.masked_fill(obs[..., -self.num_barred :] == 0, -torch.inf)
        return out, states

    def infer(self, obs: Array, memory: Memory) -> F32:
        """Outputs [B, num_out] for the next observations [B, D], which `memory` then knows."""
        seen = obs if self._features is None else self._features.one_hot(obs)
        memory.hidden = self.core.infer(seen, memory.hidden, memory.starts)
        memory.starts = np.zeros_like(memory.starts)
        out = self.net.infer(memory.hidden)
        if self.num_barred:
            out[obs[:, -self.num_barred :] == 0] = -np.inf
        return out

    def memory(self, num_envs: int) -> Memory:
        """That of rows which have seen nothing."""
        return Memory(num_envs, self.core.num_hidden)

    def facts(self) -> dict[str, Any]:
        """JSON that `recurrent_net_from_facts` reads."""
        return {
            "obs_spec": self.obs_spec.facts(),
            "core": self.core.facts(),
            "net": self.net.facts(),
            "bars": self.num_barred > 0,
        }


class RecurrentPolicy(nn.Module):
    """Acts by what it has seen of its episode.

    `act` keeps a memory of its own; `begin` empties it, and `note` says which rows begin anew.
    """

    def __init__(self, net: RecurrentNet, head: ActorHead) -> None:
        super().__init__()
        self.net, self.head = net, head
        self._memory: Memory | None = None

    def draw(self, obs: Array, memory: Memory, rng: np.random.Generator | None) -> Array:
        """Actions for observations [B, D], drawn by `rng` or without it the most likely."""
        params = self.net.infer(obs, memory)
        actions: Array = self.head.mode(params) if rng is None else self.head.draw(params, rng)
        return actions

    def act(self, obs: Array, rng: np.random.Generator | None) -> Array:
        """The same with the policy's own memory; another number of rows begins anew."""
        if self._memory is None or len(self._memory.starts) != len(obs):
            self._memory = self.net.memory(len(obs))
        return self.draw(obs, self._memory, rng)

    def begin(self) -> None:
        """Forgets all that was seen."""
        self._memory = None

    def note(self, starts: NDArray[np.bool_]) -> None:
        """Rows [B] whose next observation is the first of an episode."""
        if self._memory is not None:
            self._memory.starts = self._memory.starts | starts

    def to_env(self, actions: Array) -> Array:
        """What the world is given for these actions: within its bounds and in its units."""
        out: Array = self.head.to_env(actions)
        return out

    def facts(self) -> dict[str, Any]:
        """JSON that `recurrent_policy_from_facts` reads: all but the weights."""
        return {**self.net.facts(), "head": self.head.facts()}

    def arrays(self) -> dict[str, Array]:
        """Every weight by name, copied."""
        return arrays(self)

    def load_arrays(self, found: Mapping[str, Array]) -> None:
        """Takes weights that `arrays` gave; raises UserError where a name or shape differs."""
        load_arrays(self, found)


def recurrent_net(
    obs_spec: ObsSpec,
    num_out: int,
    *,
    num_hidden: int,
    hidden: Sequence[int],
    activation: Activation,
    rng: np.random.Generator,
    gain_out: float,
    bars: bool = False,
) -> RecurrentNet:
    """A GRU with `num_hidden` numbers of state, and layers of `hidden` on it.

    Raises UserError for observations with images, which the GRU does not take.
    """
    if not obs_spec.is_vector:
        raise UserError(
            f"a recurrent policy takes vectors, but observations have images {obs_spec.shape}:"
            " frame_stack shows several images at once to the others"
        )
    core = GRU(obs_spec.num_features, num_hidden, rng=rng)
    net = network(
        ObsSpec.vector(num_hidden),
        num_out,
        hidden=hidden,
        activation=activation,
        rng=rng,
        gain_out=gain_out,
    )
    return RecurrentNet(obs_spec, core, net, bars=bars)


def recurrent_actor(
    obs_spec: ObsSpec,
    action_spec: ActionSpec,
    *,
    num_hidden: int,
    hidden: Sequence[int],
    activation: Activation,
    rng: np.random.Generator,
) -> RecurrentPolicy:
    """A policy-gradient actor that remembers; its last layer begins near 0, as `actor`'s does."""
    head = head_for(action_spec)
    net = recurrent_net(
        obs_spec,
        head.num_params,
        num_hidden=num_hidden,
        hidden=hidden,
        activation=activation,
        rng=rng,
        gain_out=0.01,
        bars=obs_spec.num_barred > 0,
    )
    return RecurrentPolicy(net, head)


def recurrent_policy_from_facts(facts: Mapping[str, Any]) -> RecurrentPolicy:
    """The policy that `facts()` described, with weights yet to be loaded."""
    net = RecurrentNet(
        ObsSpec.from_facts(facts["obs_spec"]),
        gru_from_facts(facts["core"]),
        network_from_facts(facts["net"]),
        bars=facts["bars"],
    )
    return RecurrentPolicy(net, head_from_facts(facts["head"]))

"""A policy: a net and the meaning of its outputs, which acts, and is saved as facts and arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from plaudit.nets.actions import (
    ActorHead,
    DeterministicTanh,
    Greedy,
    Head,
    SquashedGaussian,
    head_for,
    head_from_facts,
)
from plaudit.nets.control_nets import (
    Net,
    arrays,
    load_arrays,
    network,
    network_from_facts,
)
from plaudit.nets.mlp import Activation, Init
from plaudit.nets.recurrent_policies import recurrent_policy_from_facts
from plaudit.records.spaces import ActionSpec, ObsSpec

Array = NDArray[Any]
H = TypeVar("H", bound=Head)


class Policy(nn.Module, Generic[H]):
    """Acts by `net` and `head`; `head` says what the net's outputs mean.

    `act` gives actions as they are stored and scored; `to_env` makes what the world is given.
    """

    def __init__(self, net: Net, head: H) -> None:
        super().__init__()
        self.net: Net = net
        self.head: H = head

    def act(self, obs: Array, rng: np.random.Generator | None) -> Array:
        """Actions for observations [B, ...]: drawn by `rng`, or without one the best known."""
        params = self.net.infer(obs)
        return self.head.mode(params) if rng is None else self.head.draw(params, rng)

    def to_env(self, actions: Array) -> Array:
        """What the world is given for these actions: within its bounds and in its units."""
        return self.head.to_env(actions)

    def forward(self, obs: Tensor) -> Tensor:
        """The head's params [B, num_params], differentiable."""
        return self.net.forward(obs)

    def facts(self) -> dict[str, Any]:
        """JSON that `policy_from_facts` reads: all but the weights."""
        return {"net": self.net.facts(), "head": self.head.facts()}

    def arrays(self) -> dict[str, Array]:
        """Every weight by name, copied."""
        return arrays(self)

    def load_arrays(self, found: Mapping[str, Array]) -> None:
        """Takes weights that `arrays` gave; raises UserError where a name or shape differs."""
        load_arrays(self, found)


ActorPolicy: TypeAlias = Policy[ActorHead]


def actor(
    obs_spec: ObsSpec,
    action_spec: ActionSpec,
    *,
    rng: np.random.Generator,
    hidden: Sequence[int] = (64, 64),
    activation: Activation = "tanh",
    init: Init = "orthogonal",
    gain_out: float = 0.01,
) -> ActorPolicy:
    """A policy-gradient actor: categorical, multi-categorical or Gaussian by the action space.

    The last layer begins near 0, so all actions begin equally likely (Andrychowicz et al. 2021,
    section 3.2).
    """
    head = head_for(action_spec)
    net = network(
        obs_spec,
        head.num_params,
        hidden=hidden,
        activation=activation,
        rng=rng,
        init=init,
        gain_out=gain_out,
        bars=obs_spec.num_barred > 0,
    )
    return Policy(net, head)


def greedy(
    obs_spec: ObsSpec,
    action_spec: ActionSpec,
    *,
    rng: np.random.Generator,
    hidden: Sequence[int] = (64, 64),
    activation: Activation = "relu",
    head: type[Greedy] = Greedy,
) -> Policy[Greedy]:
    """Greedy over action values, as DQN acts; `head` may be `DuelingGreedy`."""
    of_actions = head(action_spec)
    net = network(
        obs_spec,
        of_actions.num_params,
        hidden=hidden,
        activation=activation,
        rng=rng,
        init="uniform",
        bars=obs_spec.num_barred > 0,
    )
    return Policy(net, of_actions)


def squashed_gaussian(
    obs_spec: ObsSpec,
    action_spec: ActionSpec,
    *,
    rng: np.random.Generator,
    hidden: Sequence[int] = (256, 256),
    activation: Activation = "relu",
) -> Policy[SquashedGaussian]:
    """SAC's actor: mean and log σ from the net, tanh around the draw."""
    head = SquashedGaussian(action_spec)
    net = network(
        obs_spec, head.num_params, hidden=hidden, activation=activation, rng=rng, init="uniform"
    )
    return Policy(net, head)


def deterministic(
    obs_spec: ObsSpec,
    action_spec: ActionSpec,
    *,
    rng: np.random.Generator,
    hidden: Sequence[int] = (256, 256),
    activation: Activation = "relu",
    noise_std: float = 0.1,
) -> Policy[DeterministicTanh]:
    """TD3's actor: tanh of the net, with noise when exploring."""
    head = DeterministicTanh(action_spec, noise_std=noise_std)
    net = network(
        obs_spec, head.num_params, hidden=hidden, activation=activation, rng=rng, init="uniform"
    )
    return Policy(net, head)


def policy_from_facts(facts: Mapping[str, Any]) -> Policy[Any]:
    """The policy that `facts()` described, with weights yet to be loaded."""
    if "core" in facts:  # it remembers
        return cast("Policy[Any]", recurrent_policy_from_facts(facts))
    return Policy(network_from_facts(facts["net"]), head_from_facts(facts["head"]))

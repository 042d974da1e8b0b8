"""Two critics of an action given as numbers, and how the lesser of them changes with the action.

SAC and TD3 go through critics to improve an actor. Autograd would compute the gradient of both
critics in every row, and of their weights, and throw most of it away: of each row only the lesser
critic counts, so one pass backwards through as many rows as the batch has is enough.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from plaudit.nets.control_nets import Net
from plaudit.nets.mlp import frozen, layers
from plaudit.nets.mlp_kernels import bias_relu

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]


def critic_input(obs: NDArray[Any], action: F32) -> F32:
    """What the critics take: [B, numbers of the observation + d], images flattened."""
    return np.concatenate([obs.reshape(len(obs), -1), action], 1, dtype=np.float32)


def least_q(critic: Net, obs: NDArray[Any], action: F32) -> tuple[F32, F32]:
    """min_i Q_i(s, a) [B], and its gradient in a [B, d]; where both are equal, that of the first."""
    x = critic_input(obs, action)
    by_hand = critic.num_images == 0 and critic.activation == "relu"
    by_rows = by_hand and _least_by_rows(critic, critic.seen(x))
    q, of_inputs = by_rows or _by_autograd(critic, x, 2)
    return q, of_inputs[:, -action.shape[1] :]


def first_q(critic: Net, obs: NDArray[Any], action: F32) -> tuple[F32, F32]:
    """Q_1(s, a) [B], and its gradient in a [B, d]."""
    x = critic_input(obs, action)
    by_hand = critic.num_images == 0 and critic.activation == "relu"
    by_rows = by_hand and _first_by_rows(critic, critic.seen(x))
    q, of_inputs = by_rows or _by_autograd(critic, x, 1)
    return q, of_inputs[:, -action.shape[1] :]


def _by_autograd(critic: Net, x: F32, num_critics: int) -> tuple[F32, F32]:
    """The least of the first `num_critics`, for nets of any kind."""
    inputs = torch.from_numpy(x).requires_grad_()
    with frozen(critic):
        q = critic(inputs)[:num_critics, :, 0].min(0).values
    (grad,) = torch.autograd.grad(q.sum(), inputs)
    return q.detach().numpy(), grad.numpy()


def _least_by_rows(critic: Net, x: F32) -> tuple[F32, F32]:
    """The same for rectified layers: each critic's pass back has only the rows where it is least."""
    net = critic.mlp
    out, trace = net.trace(x)
    q0, q1 = out[0, :, 0], out[1, :, 0]
    second = q1 < q0
    of_inputs = np.empty_like(x)
    for copy, rows in enumerate((np.flatnonzero(~second), np.flatnonzero(second))):
        hidden = [h[copy] for h in trace.inputs[1:]]
        of_inputs[rows] = _slope(_layers_of(critic, copy), hidden, rows)
    return np.minimum(q0, q1), of_inputs


def _first_by_rows(critic: Net, x: F32) -> tuple[F32, F32]:
    places = _layers_of(critic, 0)
    inputs = [x]
    for weight, bias in places[:-1]:
        h = inputs[-1] @ weight.T
        bias_relu(h, bias)
        inputs.append(h)
    weight, bias = places[-1]
    q = (inputs[-1] @ weight.T + bias)[:, 0]
    return q, _slope(places, inputs[1:], np.arange(len(x)))


def _layers_of(critic: Net, copy: int) -> list[tuple[F32, F32]]:
    """Weight [out, in] and bias [out] of each layer of one critic."""
    net = critic.mlp
    places = layers(net.flat.detach().numpy(), net.sizes, net.copies)
    return [(weight[copy], bias[copy, 0]) for weight, bias in places]


def _slope(places: list[tuple[F32, F32]], hidden: list[F32], rows: Ints) -> F32:
    """Gradient of the output in the inputs [K, in] for `rows` [K] of a batch, whose rectified
    layers were `hidden` [B, H]."""
    grad: F32 = np.ones((len(rows), 1), np.float32)
    for layer in range(len(places) - 1, -1, -1):
        weight = places[layer][0]
        grad = grad * weight if len(weight) == 1 else grad @ weight
        if layer:
            _rectify(grad, hidden[layer - 1], rows)
    return grad


@njit(cache=True, nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _rectify(grad: F32, h: F32, rows: Ints) -> None:
    """grad [K, H] = 0 where h [B, H] of its row is 0, in place."""
    for i in range(len(rows)):
        row = rows[i]
        for j in range(grad.shape[1]):
            grad[i, j] = np.float32(0.0) if h[row, j] <= np.float32(0.0) else grad[i, j]


__all__ = ["critic_input", "first_q", "least_q"]

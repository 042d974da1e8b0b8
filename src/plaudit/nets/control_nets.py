"""Nets from observations to numbers: an MLP for vectors, convolutions before it for images.

Images are uint8 and are divided by 255 inside. A mixture is cut into its pieces; every image goes
through convolutions of its own and all features are joined. Choices are seen as one-hot codes, by
looking up where those would be long. A mask of actions is no input; a net that `bars` gives −inf for
actions off it.

Source: Mnih et al. 2015 (the convolutions of the Nature DQN); smaller kernels with padding where a
side is under 36 pixels, which the Nature net cannot take.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from plaudit.nets.mlp import MLP, Activation, Init, Trace, orthogonal
from plaudit.nets.mlp_kernels import F32
from plaudit.nets.mlp_look_up import LookUpMLP
from plaudit.nets.one_hot import Features
from plaudit.records.errors import UserError
from plaudit.records.spaces import ObsSpec

Array = NDArray[Any]

NATURE = ((32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0))
"""Channels, kernel, stride, padding (Mnih et al. 2015, methods)."""
SMALL = ((32, 3, 2, 1), (64, 3, 2, 1), (64, 3, 1, 1))
"""For images with a side under 36 pixels."""
NUM_FEATURES = 512
"""Features of an image (Mnih et al. 2015)."""
MAX_WRITTEN_CODES = 64
"""Features up to which one-hot codes are written out: BLAS is quicker there than looking up."""


class ImageEncoder(nn.Module):
    """Convolutions of one image, then NUM_FEATURES rectified features."""

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator, init: Init) -> None:
        super().__init__()
        plan = NATURE if min(shape[1:]) >= 36 else SMALL
        channels, (height, width) = shape[0], shape[1:]
        parts: list[nn.Module] = []
        for out, kernel, stride, padding in plan:
            parts += [nn.Conv2d(channels, out, kernel, stride, padding), nn.ReLU()]
            channels = out
            height = (height + 2 * padding - kernel) // stride + 1
            width = (width + 2 * padding - kernel) // stride + 1
        parts += [nn.Flatten(), nn.Linear(channels * height * width, NUM_FEATURES), nn.ReLU()]
        self.parts = nn.Sequential(*parts)
        _initialise(self.parts, rng, init)

    def forward(self, image: Tensor) -> Tensor:
        """Features [B, 512] of images [B, C, H, W] in 0 to 255."""
        dtype = next(self.parts.parameters()).dtype
        features: Tensor = self.parts(image.to(dtype) / 255.0)
        return features


class Net(nn.Module):
    """Outputs [B, num_out] of observations [B, ...], or [N, B, num_out] with copies = N > 1.

    With `extra_inputs` (a critic's action) the input is one float32 array [B, observation +
    extra], images flattened. Copies share nothing. With `bars` the last outputs are of actions, and
    −inf where the observation's mask does not allow one.
    """

    def __init__(
        self,
        obs_spec: ObsSpec,
        num_out: int,
        *,
        hidden: Sequence[int],
        activation: Activation,
        rng: np.random.Generator,
        init: Init,
        gain_out: float,
        copies: int,
        extra_inputs: int,
        bars: bool,
    ) -> None:
        super().__init__()
        self.obs_spec, self.num_out, self.hidden = obs_spec, num_out, tuple(hidden)
        self.activation, self.copies, self.extra_inputs = activation, copies, extra_inputs
        images = [piece for piece in obs_spec.pieces if piece.kind == "image"]
        self.num_images = len(images)
        # Its name stands in saved weights.
        self.eyes = nn.ModuleList(
            ImageEncoder(piece.shape, rng, init) for _ in range(copies) for piece in images
        )
        self.num_barred = obs_spec.num_barred if bars else 0
        self.features: Features | None = None
        if any(piece.kind in ("choice", "mask") for piece in obs_spec.pieces):
            self.features = Features(obs_spec, extra_inputs)
        keys: dict[str, Any] = {
            "activation": activation,
            "rng": rng,
            "init": init,
            "gain_out": gain_out,
            "copies": copies,
        }
        num_seen = extra_inputs + obs_spec.num_features
        num_seen += sum(NUM_FEATURES - piece.size for piece in images)
        self.mlp: MLP
        if self.features and not images and not extra_inputs and num_seen > MAX_WRITTEN_CODES:
            self.mlp = LookUpMLP(self.features, (*hidden, num_out), **keys)
        else:
            self.mlp = MLP((num_seen, *hidden, num_out), **keys)
        self._is_plain = not images and self.features is None

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of a batch, differentiable."""
        if self._is_plain:
            return self.mlp.forward(x)
        if self.num_images:
            seen = [self._features(x, copy) for copy in range(self.copies)]
            out = self.mlp.forward(seen[0] if self.copies == 1 else torch.stack(seen))
        elif self.features is None or isinstance(self.mlp, LookUpMLP):
            out = self.mlp.forward(x)
        else:
            out = self.mlp.forward(self.features.one_hot_tensor(x))
        if not self.num_barred:
            return out
        barred = torch.zeros(out.shape[-2:], dtype=torch.bool, device=out.device)
        barred[:, -self.num_barred :] = x.flatten(1)[:, -self.num_barred :] == 0
        return out.masked_fill(barred, -torch.inf)

    def infer(self, x: Array) -> F32:
        """The same without autograd, NumPy to NumPy."""
        if self._is_plain:
            return self.mlp.infer(x)
        if not self.num_images:
            return self._barred(self.mlp.infer(self.seen(x)), x)
        with torch.no_grad():
            out = self.forward(torch.from_numpy(x).to(self.mlp.flat.device))
            return np.asarray(out.cpu().numpy(), np.float32)

    def traced(self, x: Array) -> tuple[F32, Callable[[F32], None]]:
        """Outputs, and a function that takes a loss's gradient in them to the weights' `grad`.

        What `forward` and `backward` do, without autograd's own work where the net is layers alone:
        that is a tenth of an update of a 256×256 net, and half of one of a 64×64 net. Gradients add
        up, as in torch; after they were forgotten the next one takes the memory of the last, so
        keep a copy of one that is to be kept. `x` must not change in between.
        """
        if self.num_images or not self.mlp.on_cpu():
            out = self.forward(torch.from_numpy(x).to(self.mlp.flat.device))
            return out.detach().cpu().numpy(), partial(_backward, out)
        if self._is_plain:
            values, trace = self.mlp.trace(np.asarray(x, np.float32))
            return values, partial(self._add_gradient, trace)
        values, trace = self.mlp.trace(np.asarray(self.seen(x), np.float32))
        if not self.num_barred:
            return values, partial(self._add_gradient, trace)
        values = self._barred(values, x)
        return values, partial(self._add_open_gradient, trace, values == -np.inf)

    def seen(self, x: Array) -> Array:
        """What the layers take of x [B, ...], without images."""
        if self.features is None or isinstance(self.mlp, LookUpMLP):
            return x
        return self.features.one_hot(x)

    def allowed(self, obs: Array) -> NDArray[np.bool_]:
        """Which actions are allowed [B, A], of observations that have a mask."""
        rows = obs.reshape(len(obs), -1)
        return np.asarray(rows[:, rows.shape[1] - self.obs_spec.num_barred :] != 0)

    def _barred(self, out: F32, x: Array) -> F32:
        if self.num_barred:
            out[..., -self.num_barred :][..., ~self.allowed(x)] = -np.inf
        return out

    def _add_gradient(self, trace: Trace, grad: F32) -> None:
        flat = self.mlp.flat
        first = flat.grad is None
        found, _ = self.mlp.backprop(trace, grad, weights=True, inputs=False, again=first)
        assert found is not None
        of_weights = torch.from_numpy(found)
        flat.grad = of_weights if flat.grad is None else flat.grad + of_weights

    def _add_open_gradient(self, trace: Trace, barred: NDArray[np.bool_], grad: F32) -> None:
        """Outputs that were barred do not depend on the weights."""
        self._add_gradient(trace, np.where(barred, np.float32(0), grad))

    def _features(self, x: Tensor, copy: int) -> Tensor:
        """[B, features]: images through this copy's encoders, the rest as it is, in order."""
        x = x.flatten(1)
        expected = sum(piece.size for piece in self.obs_spec.pieces) + self.extra_inputs
        if x.shape[1] != expected:
            raise UserError(f"the net takes {expected} numbers an observation, found {x.shape[1]}.")
        parts, start = [], 0
        encoders = iter(self.eyes[copy * self.num_images : (copy + 1) * self.num_images])
        for piece in self.obs_spec.pieces:
            part = x[:, start : start + piece.size]
            start += piece.size
            if piece.kind == "image":
                parts.append(next(encoders)(part.reshape(-1, *piece.shape)))
            elif piece.kind == "choice":
                alone = ObsSpec((piece.size,), "float32", (piece,))
                parts.append(Features(alone).one_hot_tensor(part))
            elif piece.kind == "vector":
                parts.append(part)
        if self.extra_inputs:
            parts.append(x[:, start:])
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def facts(self) -> dict[str, Any]:
        """JSON that `network_from_facts` reads: all but the weights."""
        return {
            "obs_spec": self.obs_spec.facts(),
            "num_out": self.num_out,
            "hidden": list(self.hidden),
            "activation": self.activation,
            "copies": self.copies,
            "extra_inputs": self.extra_inputs,
            "bars": self.num_barred > 0,
        }


def network(
    obs_spec: ObsSpec,
    num_out: int,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: Activation = "tanh",
    rng: np.random.Generator,
    init: Init = "orthogonal",
    gain_out: float = 1.0,
    copies: int = 1,
    extra_inputs: int = 0,
    bars: bool = False,
) -> Net:
    """The net for these observations; `init` and `gain_out` as in `MLP`.

    Raises UserError for an unknown activation or init, with the nearest name.
    """
    return Net(
        obs_spec,
        num_out,
        hidden=hidden,
        activation=activation,
        rng=rng,
        init=init,
        gain_out=gain_out,
        copies=copies,
        extra_inputs=extra_inputs,
        bars=bars,
    )


def network_from_facts(facts: Mapping[str, Any]) -> Net:
    """A net as `facts` says, with weights yet to be loaded."""
    return network(
        ObsSpec.from_facts(facts["obs_spec"]),
        facts["num_out"],
        hidden=facts["hidden"],
        activation=facts["activation"],
        rng=np.random.default_rng(0),
        init="uniform",
        copies=facts["copies"],
        extra_inputs=facts["extra_inputs"],
        bars=facts.get("bars", False),
    )


def arrays(module: nn.Module) -> dict[str, Array]:
    """Every parameter by name, as NumPy arrays of their own."""
    return {name: p.detach().cpu().numpy().copy() for name, p in module.named_parameters()}


@torch.no_grad()
def load_arrays(module: nn.Module, found: Mapping[str, Array]) -> None:
    """Fills a module with what `arrays` gave; raises UserError where a name or shape differs."""
    own = dict(module.named_parameters())
    if set(own) != set(found):
        raise UserError(f"the saved weights are {sorted(found)}, expected {sorted(own)}.")
    for name, p in own.items():
        if tuple(found[name].shape) != tuple(p.shape):
            raise UserError(
                f"the saved weight {name} has shape {tuple(found[name].shape)}, "
                f"expected {tuple(p.shape)}."
            )
        p.copy_(torch.from_numpy(np.ascontiguousarray(found[name])))


def _backward(out: Tensor, grad: F32) -> None:
    out.backward(torch.from_numpy(grad).to(out))  # type: ignore[no-untyped-call]


@torch.no_grad()
def _initialise(parts: nn.Sequential, rng: np.random.Generator, init: Init) -> None:
    """First weights of convolutions and linear layers, drawn from `rng`."""
    for part in parts:
        if not isinstance(part, nn.Conv2d | nn.Linear):
            continue
        assert part.bias is not None
        rows, columns = part.weight.shape[0], prod(part.weight.shape[1:])
        if init == "orthogonal":
            weight, bias = math.sqrt(2.0) * orthogonal(rows, columns, rng), np.zeros(rows)
        else:
            bound = 1.0 / math.sqrt(columns)
            weight = rng.uniform(-bound, bound, (rows, columns))
            bias = rng.uniform(-bound, bound, rows)
        part.weight.copy_(torch.from_numpy(weight).view_as(part.weight))
        part.bias.copy_(torch.from_numpy(bias))

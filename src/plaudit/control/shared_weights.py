"""Weights in memory that several processes write to without a lock (Niu et al. 2011, Hogwild!).

Beside the weights θ lies RMSprop's statistic g, shared too, which Mnih et al. 2016 (1602.01783,
section 4) found most robust, and a count of steps for each worker, who alone writes to it.
"""

from __future__ import annotations

import multiprocessing

import numpy as np
import torch
from numpy.typing import NDArray

from plaudit.nets.mlp_kernels import rmsprop_step
from plaudit.records.state import Saved

RMSPROP_DECAY, RMSPROP_EPS = 0.99, 1e-5
"""α as in 2016, section 8; ε as OpenAI's A2C has it."""


class SharedWeights:
    """Weights θ and RMSprop's statistic g in memory that all workers write to, and their counts."""

    def __init__(self, params: list[torch.Tensor], num_workers: int, total: int) -> None:
        sizes = [p.numel() for p in params]
        self._ends = np.cumsum(sizes).tolist()
        self._params = multiprocessing.RawArray("f", sum(sizes))
        self._square = multiprocessing.RawArray("f", sum(sizes))
        self._steps = multiprocessing.RawArray("q", num_workers)
        self._stop = multiprocessing.RawValue("b", 0)
        self.start, self.total = 0, total
        self.square[:] = 1.0  # as TensorFlow 1 began it
        self.copy_from(params)

    @property
    def params(self) -> NDArray[np.float32]:
        """θ, in place."""
        return np.frombuffer(self._params, np.float32)

    @property
    def square(self) -> NDArray[np.float32]:
        """g, in place."""
        return np.frombuffer(self._square, np.float32)

    @property
    def step(self) -> int:
        """Environment steps of all workers, those before a resumption included."""
        return self.start + int(np.frombuffer(self._steps, np.int64).sum())

    @property
    def remaining(self) -> float:
        """Share of the run that is to come."""
        return max(0.0, 1.0 - self.step / self.total)

    @property
    def finished(self) -> bool:
        """True once all steps are taken, or the workers are told to stop."""
        return bool(self._stop.value) or self.step >= self.total

    def stop(self) -> None:
        """Tells every worker to leave after its round."""
        self._stop.value = 1

    def count(self, worker: int, steps: int) -> None:
        """Adds to a worker's own counter, which nobody else writes to."""
        self._steps[worker] += steps

    def copy_from(self, params: list[torch.Tensor]) -> None:
        """θ ← these parameters."""
        self.params[:] = np.concatenate([p.detach().numpy().ravel() for p in params])

    def copy_to(self, params: list[torch.Tensor]) -> None:
        """These parameters ← θ."""
        for p, part in zip(params, np.split(self.params, self._ends[:-1]), strict=True):
            p.detach().numpy().ravel()[:] = part

    def descend(self, params: list[torch.Tensor], lr: float) -> None:
        """One step of RMSprop on θ by the parameters' gradients, without a lock."""
        f32, begin = np.float32, 0
        theta, square = self.params, self.square
        for p, end in zip(params, self._ends, strict=True):
            if p.grad is not None:
                rmsprop_step(
                    theta[begin:end],
                    p.grad.numpy().ravel(),
                    square[begin:end],
                    f32(lr),
                    f32(RMSPROP_DECAY),
                    f32(1.0 - RMSPROP_DECAY),
                    f32(RMSPROP_EPS),
                )
            begin = end

    def state(self) -> Saved:
        """θ and g, copied."""
        return {"params": self.params.copy(), "square": self.square.copy()}, {"step": self.step}

    def restore(self, saved: Saved) -> None:
        """Goes on from them."""
        arrays, facts = saved
        self.params[:], self.square[:] = arrays["params"], arrays["square"]
        self.start = facts["step"]

"""Each copy of an environment in a process of its own, for environments that are slow to step.

The copies are the same objects as in `sync`, with the same seeds, so both give the same transitions
bit for bit. Actions, observations and rewards lie in memory that the processes share; a pipe to
each carries one byte to say go and one to say done. What does not come back in time, or dies, is
told by copy and step.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from plaudit.envs.copies import TERMINATED, TRUNCATED, Copy
from plaudit.envs.guard import fault, is_finite
from plaudit.envs.spaces import ActionCodec
from plaudit.envs.sync import check_copies, not_finite, saved_copy
from plaudit.envs.worlds import Array, Episode, Transition
from plaudit.records.errors import UserError
from plaudit.records.spaces import ActionSpec, ObsSpec
from plaudit.records.state import Saved

MakeCopy = Callable[[int], Copy]
"""The copy of an index; called in that copy's process, so it must be importable there."""

MAKING = 120.0
"""Seconds that a new process and its environment may take at least, on a machine that is busy."""

NEEDS_MAIN = (
    " before its environment was made; a script that makes worlds in processes does its own work"
    " under: if __name__ == '__main__':"
)
"""A process of ours first loads the script that was run, and must not run it again."""

STEP, RESET, STATE, RESTORE, DONE, FAULT, TICK = (bytes([code]) for code in range(7))


class Elsewhere(Exception):
    """What was raised in a copy's process, with its traceback as text."""


class Shared:
    """Arrays of B copies that several processes see."""

    def __init__(self, memory: Any, num_envs: int, obs: ObsSpec, action: ActionSpec) -> None:
        fields = {
            "next_obs": (obs.dtype, obs.shape),
            "obs": (obs.dtype, obs.shape),
            "action": (action.dtype, action.shape),
            "reward": ("float64", ()),
            "end": ("int64", ()),
            "ret": ("float64", ()),
            "length": ("int64", ()),
            "steps": ("int64", ()),
        }
        arrays: dict[str, Array] = {}
        begin = 0
        for name, (dtype, shape) in fields.items():
            size = num_envs * int(np.prod(shape)) * np.dtype(dtype).itemsize
            if memory is not None:
                part = np.frombuffer(memory, np.uint8, size, begin)
                arrays[name] = part.view(dtype).reshape(num_envs, *shape)
            begin += -(-size // 64) * 64  # each begins a line of the cache
        self.num_bytes = begin
        self.arrays = arrays

    def __getattr__(self, name: str) -> Array:
        return self.__dict__["arrays"][name]  # type: ignore[no-any-return]


class Processes:
    """Worlds in processes of their own."""

    gives_state = True
    statistics = None

    def __init__(
        self,
        make_copy: MakeCopy,
        num_envs: int,
        *,
        name: str,
        obs_spec: ObsSpec,
        action_spec: ActionSpec,
        timeout: float,
    ) -> None:
        self.num_envs, self.obs_spec, self.action_spec = num_envs, obs_spec, action_spec
        self._name, self._timeout, self._are_made = name, timeout, False
        if multiprocessing.current_process().daemon:
            raise UserError(
                "vector = processes cannot be used in a worker process; use vector = sync"
            )
        context: Any = _context()
        size = Shared(None, num_envs, obs_spec, action_spec).num_bytes
        memory = context.RawArray("B", size)
        self._shared = Shared(memory, num_envs, obs_spec, action_spec)
        self._none, self._all = np.zeros(num_envs, np.bool_), np.ones(num_envs, np.bool_)
        self._none.flags.writeable = self._all.flags.writeable = False
        self._pipes: list[Connection] = []
        self._workers: list[Any] = []
        for index in range(num_envs):
            here, there = context.Pipe()
            arguments = (there, make_copy, index, num_envs, memory, obs_spec, action_spec)
            worker = context.Process(target=_work, args=arguments, daemon=True)
            worker.start()
            there.close()
            self._pipes.append(here)
            self._workers.append(worker)
        try:
            self._gather("was not made", MAKING)
        except UserError:
            self.close()
            raise
        self._are_made = True

    def reset(self) -> Array:
        """Begins an episode in every copy."""
        self._all_do(RESET)
        return self._shared.obs.copy()

    def step(self, actions: Array) -> Transition:
        """Acts in every copy at once; where an episode ended, the next one has begun."""
        shared = self._shared
        shared.action[:] = actions
        self._all_do(STEP)
        next_obs, reward = shared.next_obs.copy(), shared.reward.copy()
        ended = np.flatnonzero(shared.end)
        if not len(ended):
            return Transition(next_obs, next_obs, reward, self._none, self._none, self._all)
        terminated = (shared.end & TERMINATED) != 0
        truncated = (shared.end & TRUNCATED) != 0
        obs = next_obs.copy()
        obs[ended] = shared.obs[ended]
        episodes = [
            Episode(int(row), float(shared.ret[row]), int(shared.length[row])) for row in ended
        ]
        return Transition(obs, next_obs, reward, terminated, truncated, self._all, episodes)

    def state(self) -> Saved:
        """Of each copy the number and the actions of the episode under way."""
        arrays: dict[str, Array] = {}
        facts = []
        self._all_do(STATE)
        for index, pipe in enumerate(self._pipes):
            own, said = pipe.recv()
            arrays |= {f"{name}.{index}": array for name, array in own.items()}
            facts.append(said)
        arrays["obs"] = self._shared.obs.copy()
        return arrays, {"copies": facts}

    def restore(self, saved: Saved) -> Array:
        """Acts each copy's episode again up to where it was, all at once."""
        check_copies(saved[1], self.num_envs)
        self._shared.obs[:] = saved[0]["obs"]
        for index, pipe in enumerate(self._pipes):
            self._send(index, RESTORE)
            with contextlib.suppress(OSError):  # a dead one is told of below
                pipe.send(saved_copy(saved, index))
        self._gather()
        return self._shared.obs.copy()

    def close(self) -> None:
        """Ends the processes; those that do not end by themselves are killed."""
        for pipe in self._pipes:
            pipe.close()
        deadline = time.monotonic() + 1.0
        for worker in self._workers:
            worker.join(max(0.0, deadline - time.monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join()
        self._pipes, self._workers = [], []

    # --- talking

    def _all_do(self, what: bytes) -> None:
        for index in range(self.num_envs):
            self._send(index, what)
        self._gather()

    def _send(self, index: int, what: bytes) -> None:
        try:
            self._pipes[index].send_bytes(what)
        except OSError:
            raise self._dead(index) from None

    def _gather(self, late: str = "did not answer", at_least: float = 0.0) -> None:
        """Waits until every copy is done."""
        timeout = max(self._timeout, at_least)
        deadline = time.monotonic() + timeout
        for index, pipe in enumerate(self._pipes):
            while True:
                if not pipe.poll(max(0.0, deadline - time.monotonic())):
                    raise self._fault(index, f"{late} within {timeout:g} s (step_timeout)")
                try:
                    answer = pipe.recv_bytes()
                    if answer == DONE:
                        break
                    if answer == TICK:
                        deadline = time.monotonic() + timeout
                        continue
                    sentence, trace = pipe.recv()
                except (EOFError, OSError):
                    raise self._dead(index) from None
                raise UserError(sentence) from Elsewhere(trace)

    def _dead(self, index: int) -> UserError:
        self._workers[index].join(1.0)
        code = self._workers[index].exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        hint = "" if self._are_made else NEEDS_MAIN
        return self._fault(index, f"its process ended {how}{hint}")

    def _fault(self, index: int, what: str) -> UserError:
        return fault(self._name, index, int(self._shared.steps[index]) + 1, what)


def _context() -> Any:
    """Forked from a server that has loaded what a copy needs; or each begun from nothing."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["plaudit.envs.processes"])
    return context


# --- in a copy's process


def _work(
    pipe: Connection,
    make_copy: MakeCopy,
    index: int,
    num_envs: int,
    memory: Any,
    obs_spec: ObsSpec,
    action_spec: ActionSpec,
) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # the one who asked for the copies ends them
        signal.signal(number, signal.SIG_IGN)
    shared = Shared(memory, num_envs, obs_spec, action_spec)
    try:
        worker = _Worker(pipe, make_copy(index), shared, index)
        pipe.send_bytes(DONE)
        while True:
            worker.obey(pipe.recv_bytes())
            pipe.send_bytes(DONE)
            worker.hand_over()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # nobody asks any more
    except Exception as error:
        sentence = str(error) if isinstance(error, UserError) else repr(error)
        with contextlib.suppress(OSError):
            pipe.send_bytes(FAULT)
            pipe.send((sentence, traceback.format_exc()))


class _Worker:
    """One copy and its rows of the shared arrays."""

    def __init__(self, pipe: Connection, copy: Copy, shared: Shared, index: int) -> None:
        self.pipe, self.copy, self.shared, self.index = pipe, copy, shared, index
        self.codec = ActionCodec(copy.env.action_space)
        self._told = 0.0
        self._kept: Saved | None = None

    def obey(self, what: bytes) -> None:
        if what == STEP:
            self._step()
        elif what == RESET:
            self._begin()
        elif what == STATE:
            self._kept = self.copy.state(self.codec)
        else:
            self._restore(self.pipe.recv())
        self.shared.steps[self.index] = self.copy.steps

    def hand_over(self) -> None:
        """Sends what was asked for, after it was said to be there."""
        if self._kept is not None:
            self.pipe.send(self._kept)
            self._kept = None

    def _step(self) -> None:
        shared, row, copy = self.shared, self.index, self.copy
        action = self.codec.rows(shared.action[row : row + 1])[0]
        shared.reward[row], end = copy.step(action, shared.next_obs, row)
        self._check(shared.next_obs, "gave")
        shared.end[row] = end
        if end:
            shared.ret[row], shared.length[row] = copy.ret, copy.length
            self._begin()
        else:
            shared.obs[row] = shared.next_obs[row]

    def _begin(self) -> None:
        self.copy.begin(self.shared.obs, self.index)
        self._check(self.shared.obs, "its reset gave")

    def _check(self, obs: Array, how: str) -> None:
        if not is_finite(obs[self.index]):
            raise not_finite([self.copy], obs[self.index : self.index + 1], how)

    def _restore(self, saved: Saved) -> None:
        shared, row = self.shared, self.index
        expected = shared.obs[row].copy()
        self.copy.restore(saved, self.codec, shared.obs, row, self._tick)
        if not np.array_equal(expected, shared.obs[row]):
            raise self.copy.unrepeated()

    def _tick(self) -> None:
        """Says now and then that a long replay goes on."""
        now = time.monotonic()
        if now - self._told > 0.2:
            self.pipe.send_bytes(TICK)
            self._told = now

"""Plaudit: teach agents by reward, from reinforcement learning to RLHF."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LATER = {
    "learn": ("plaudit.pipelines.control.job", "learn"),
    "load": ("plaudit.pipelines.control.job", "load"),
    "run": ("plaudit.pipelines.jobs", "run_job"),
    "tune": ("plaudit.pipelines.tune", "tune"),
    "resume": ("plaudit.pipelines.jobs", "resume_job"),
}
"""Names whose code is imported when they are first used, so that the command starts at once."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'plaudit' has no attribute {name!r}")
    module, function = _LATER[name]
    return getattr(import_module(module), function)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])

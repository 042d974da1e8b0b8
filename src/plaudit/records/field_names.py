"""Keys by the names that other libraries give them, and keys that are refused with a reason.

What is said of a key that a config does not have. A config adds names of its own by the class
variables `called` (name -> our key) and `refused` (name -> why), which `Config` declares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

Key = tuple[str, ...]

FIELD_NAMES: Mapping[str, tuple[str, ...]] = {
    "beta": ("kl_coef",),
    "clip_range": ("clip",),
    "clip_range_vf": ("value_clip",),
    "cliprange": ("clip",),
    "cliprange_value": ("value_clip",),
    "epsilon": ("clip",),
    "epsilon_high": ("clip_high",),
    "eval_steps": ("eval_every",),
    "gae_lambda": ("lam",),
    "init_kl_coef": ("kl_coef",),
    "learning_rate": ("lr",),
    "lora_r": ("lora_rank",),
    "max_completion_length": ("sampling.max_new_tokens",),
    "max_new_tokens": ("sampling.max_new_tokens",),
    "max_tokens": ("sampling.max_new_tokens",),
    "min_p": ("sampling.min_p",),
    "model_name_or_path": ("model",),
    "num_generations": ("answers_per_prompt",),
    "num_train_epochs": ("num_epochs",),
    "per_device_train_batch_size": ("batch_size", "prompts_per_step"),
    "prompts_file": ("prompts",),
    "reward_funcs": ("reward",),
    "reward_weights": ("weights",),
    "save_steps": ("save_every",),
    "temperature": ("sampling.temperature",),
    "top_k": ("sampling.top_k",),
    "top_p": ("sampling.top_p",),
}
"""A name in common use -> how our keys that mean the same end; of several, the first that is there."""


def keys_called(kind: type[BaseModel], owner: Key, name: str) -> list[Key]:
    """The keys of the whole config `kind` that others call `name`, which was given at `owner`.

    Those at or below `owner` where there are any, else all; what a config itself says comes first.
    """
    there = [(*path, key) for path, config in configs_in(kind) for key in config.model_fields]
    found = [
        key
        for path, config in configs_in(kind)
        if name in getattr(config, "called", {})
        for key in _near(path, _ending(there, config.called[name]))
    ]
    for end in FIELD_NAMES.get(name, ()):
        found = found or _ending(there, end)
    return list(dict.fromkeys(_near(owner, found)))


def why_refused(kind: type[BaseModel], owner: Key, name: str) -> str | None:
    """What is said of a key that a config refuses by name: the one at `owner`, or any other."""
    found = {
        path: config.refused[name]
        for path, config in configs_in(kind)
        if name in getattr(config, "refused", {})
    }
    return found.get(owner) or next(iter(found.values()), None)


def configs_in(kind: type[BaseModel], path: Key = ()) -> Iterator[tuple[Key, Any]]:
    """A config and those inside it, each with its path of names."""
    yield path, kind
    for name, field in kind.model_fields.items():
        inner = config_of(field.annotation)
        if inner is not None:
            yield from configs_in(inner, (*path, name))


def config_of(annotation: Any) -> type[BaseModel] | None:
    """The config class in an annotation such as `PPOConfig | None`."""
    for option in (annotation, *get_args(annotation)):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option
    return None


def _ending(keys: Sequence[Key], end: str) -> list[Key]:
    last = tuple(end.split("."))
    return [key for key in keys if key[-len(last) :] == last]


def _near(owner: Key, keys: Sequence[Key]) -> Sequence[Key]:
    return [key for key in keys if key[: len(owner)] == owner] or keys

"""What every test shares: one thread, no network, and shapes verified at run time."""

from __future__ import annotations

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    MPLBACKEND="Agg",
)

import sys
from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings

assert "plaudit.ops" not in sys.modules, "the shape checks must be installed before plaudit.ops"
# From here on, importing plaudit.ops verifies the annotated shapes and dtypes of every call.
jaxtyping.install_import_hook("plaudit.ops", "beartype.beartype")

torch.set_num_threads(1)

# Derandomised, so that a failure is the change's and not the day's.
settings.register_profile(
    "plaudit",
    deadline=None,
    max_examples=60,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("plaudit")


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """The functions as a user has them: without the suite's shape checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)

"""What the check at load looks past: windows, and lengths at which positions change."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, MistralConfig

from plaudit.engine.agreement import gap, probe_batch
from plaudit.models.formats.load import load_language_model
from tiny_models import tiny_llama


@pytest.mark.parametrize("longest", [None, 30, 200])
@pytest.mark.parametrize(
    ("config", "bound"),
    [
        (MistralConfig(sliding_window=40), 40),
        (
            LlamaConfig(
                rope_parameters={
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "original_max_position_embeddings": 40,
                    "factor": 4.0,
                    "short_factor": [1.0] * 64,
                    "long_factor": [2.0] * 64,
                }
            ),
            40,
        ),
        (LlamaConfig(), None),
    ],
    ids=["window", "longrope", "plain"],
)
def test_the_probe_passes_a_bound_that_the_texts_pass(tmp_path, config, bound, longest) -> None:
    lm = load_language_model(tiny_llama(tmp_path / "tiny"))
    lm.model.config = config
    batch = probe_batch(lm, longest=longest)
    size = len(batch.prompts[0].ids) + int(batch.there[0].sum())
    passes = bound is not None and (longest is None or longest > bound)
    assert (size > 40) == passes
    assert size <= lm.codec.context


def test_a_gap_is_in_nats_or_a_share_and_never_hides_nan() -> None:
    mask = torch.tensor([[True, True, False]])
    wanted = torch.tensor([[-0.5, -20.0, 0.0]])
    assert gap(wanted + torch.tensor([[0.1, 0.0, 9.0]]), wanted, mask) == pytest.approx(0.1)
    assert gap(wanted + torch.tensor([[0.0, 2.0, 0.0]]), wanted, mask) == pytest.approx(0.1)
    assert gap(wanted * torch.tensor([[float("nan"), 1.0, 1.0]]), wanted, mask) == float("inf")

"""The whole job with adapters: what it leaves is the merged model, and the adapter that made it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tiny_job import FLAGS, REWARD, run_command, tiny_job


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_the_adapter_on_the_starting_model_is_the_saved_model(tmp_path, monkeypatch) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    monkeypatch.chdir(tiny_job(tmp_path))
    flags = (*FLAGS, *REWARD, "--lora-rank", "2", "--ppo.lr", "0.01", "--name", "one")
    done = run_command("run", "rlhf", *flags)
    assert done.code == 0, done.err
    run = Path("runs", "one")
    token = torch.tensor([list(range(3, 40))])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(run / "model")(token).logits
        base = AutoModelForCausalLM.from_pretrained("model")
        start = base(token).logits
        adapted = PeftModel.from_pretrained(base, run / "adapter")(token).logits
    assert not torch.allclose(merged, start, atol=1e-2)
    torch.testing.assert_close(adapted, merged, rtol=1e-4, atol=1e-4)


def test_a_rank_beyond_the_models_maps_is_a_sentence(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tiny_job(tmp_path))
    done = run_command("run", "rlhf", *FLAGS, *REWARD, "--lora-rank", "99", "--name", "wide")
    assert done.code != 0
    assert "lora_rank is 99, but the model's maps allow ranks from 1 to 16" in done.err

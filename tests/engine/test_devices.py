"""Each role on a GPU against its numbers on the CPU, and where a run may go."""

from __future__ import annotations

import pytest
import torch

from plaudit.engine.devices import device_of, dtype_of
from plaudit.engine.local import LocalActor, LocalCritic, LocalReference, LocalRewardModel
from plaudit.engine.shared import SharedBackbone
from plaudit.engine.tops import LoRA
from plaudit.models.formats.load import load_language_model
from plaudit.records.errors import UserError
from plaudit.records.pairs import Pairs
from plaudit.records.sampling import Sampling
from plaudit.rewards.model import BradleyTerry
from simple_losses import SquaredError, weighted_step
from tiny_models import tiny_llama

PROMPTS = ("What is a river?", "Write one sentence about a cart.", "hi")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    return tiny_llama(tmp_path_factory.mktemp("model") / "tiny", layers=3)


def backbone_on(folder, device: str) -> SharedBackbone:
    lm = load_language_model(folder, dtype=torch.float64, device=device)
    return SharedBackbone(lm, num_top_layers=2, max_tokens=60)


def drawn(backbone: SharedBackbone):
    prompts = [backbone.lm.codec.prompt(text) for text in PROMPTS]
    sampling = Sampling(max_new_tokens=6, temperature=0.8)
    return LocalActor(backbone).generate(prompts, num_answers=3, sampling=sampling, seed=0)


def numbers_of(folder, device: str, batch, lora: LoRA | None) -> dict[str, torch.Tensor]:
    """All that the roles say of a batch, before and after a step of each, on the CPU."""
    backbone = backbone_on(folder, device)
    reference = LocalReference(backbone)
    actor = LocalActor(backbone, lora=lora)
    critic, model = LocalCritic(backbone, lora=lora), LocalRewardModel(backbone, lora=lora)
    for role in (critic, model):
        values = torch.randn(
            role.head.weight.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
        )
        with torch.no_grad():
            role.head.weight.copy_(values)
    found = {"drawn": drawn(backbone).token, "reference": reference.logprobs(batch)}
    ones = torch.ones(batch.chosen.shape, dtype=torch.float64)
    count, pairs = int(batch.chosen.sum()), Pairs((0, 3), (1, 4), (1.0, 0.0))
    for _ in range(2):
        weighted_step(actor, batch, ones, lr=1e-3)
        critic.update(batch, SquaredError(), fields={"wanted": ones}, denominator=count, lr=1e-3)
        model.update(batch, BradleyTerry(0.0), fields={"pairs": pairs}, denominator=2, lr=1e-3)
    found |= {
        "actor": actor.logprobs(batch),
        "values": critic.values(batch),
        "scores": model.scores(batch),
        "rewards": model(batch),
    }
    return {name: x.cpu() for name, x in found.items()}


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("lora", [None, LoRA(3)])
def test_every_role_computes_on_a_gpu_what_it_computes_on_the_cpu(folder, lora) -> None:
    batch = drawn(backbone_on(folder, "cpu"))
    there, here = (numbers_of(folder, device, batch, lora) for device in ("cuda", "cpu"))
    assert torch.equal(there.pop("drawn"), here.pop("drawn"))
    for name, x in here.items():
        torch.testing.assert_close(there[name], x, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.gpu
@needs_gpu
def test_auto_takes_the_gpu() -> None:
    assert device_of("auto").type == "cuda"
    assert device_of("cpu").type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused() -> None:
    assert device_of("auto") == device_of("cpu") == torch.device("cpu")
    with pytest.raises(UserError, match="device is cuda, but torch finds no CUDA device"):
        device_of("cuda")
    assert dtype_of("bfloat16") is torch.bfloat16


def test_a_batch_that_is_elsewhere_is_answered_where_it_is(folder) -> None:
    """What a role says of a batch is where the batch is, in the batch's order."""
    backbone = backbone_on(folder, "cpu")
    batch = drawn(backbone)
    moved = batch.to("cpu")
    assert LocalReference(backbone).logprobs(moved).device == moved.token.device

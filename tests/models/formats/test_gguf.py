"""GGUF: every block type against a scalar oracle, whole models against transformers, damage."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import gguf_blocks as oracle
from oracles.gguf_writer import pairs_from_halves, tokenizer_facts, write_gguf
from plaudit.models.formats.gguf import convert, halves_from_pairs
from plaudit.models.formats.gguf_blocks import BLOCK_TYPES
from plaudit.models.formats.gguf_file import GgufFile
from plaudit.models.formats.load import load_language_model, read_folder
from plaudit.records.errors import UserError
from tiny_models import tiny_tokenizer

BACK = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output",
    "self_attn.": "attn_",
    "mlp.": "ffn_",
    "_proj": "",
    "model.layers.": "blk.",
}


def blocks_of(kind, rng, count):
    """Random bytes with finite half-precision numbers where the type keeps them."""
    _, size = oracle.SHAPE[kind]
    raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
    if kind == 0:
        return rng.standard_normal(count).astype(np.float32).tobytes()
    if kind in (1, 30):
        raw[:, 1] &= 0x3F  # no exponent of all ones
        return raw.tobytes()
    for at in oracle.half_places(kind):
        halves = rng.standard_normal(count).astype(np.float16)
        raw[:, at : at + 2] = halves.view(np.uint8).reshape(count, 2)
    return raw.tobytes()


@pytest.mark.parametrize("kind", list(BLOCK_TYPES))
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_blocks_equal_the_scalar_oracle_bit_for_bit(kind, seed):
    known = BLOCK_TYPES[kind]
    data = blocks_of(kind, np.random.default_rng(seed), 8)
    found = known.read(np.frombuffer(data, np.uint8).reshape(8, known.size)).ravel()
    expected = np.array(oracle.weights(data, kind), dtype=np.float32)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_a_block_by_hand():
    # Q4_1: d = 0.5, m = -1; byte 0 = 0x3A: weight 0 is 10·0.5 − 1 = 4, weight 16 is 3·0.5 − 1 = 0.5.
    raw = np.zeros((1, 20), np.uint8)
    raw[0, :4] = np.array([0.5, -1.0], np.float16).view(np.uint8)
    raw[0, 4] = 0x3A
    found = BLOCK_TYPES[3].read(raw)[0]
    assert found[0] == 4.0
    assert found[16] == 0.5
    assert found[1] == -1.0


@pytest.mark.parametrize(("version", "alignment"), [(2, 32), (3, 32), (3, 64), (3, 8)])
def test_facts_and_tensors_come_back(tmp_path, version, alignment):
    rng = np.random.default_rng(0)
    tensors = {
        BLOCK_TYPES[kind].name: ((2, 3, 256), kind, blocks_of(kind, rng, 1536 // per))
        for kind, (per, _) in oracle.SHAPE.items()
    }
    facts = {"a": 7, "b": 0.5, "c": True, "d": "é", "e": ["x", "yy"], "f": [1, 2], "g": [False]}
    path = write_gguf(tmp_path / "f.gguf", facts, tensors, version=version, alignment=alignment)
    file = GgufFile(path)
    assert facts.items() <= file.facts.items()
    for name, (shape, kind, data) in tensors.items():
        found = file.read(name)
        assert found.shape == shape
        np.testing.assert_array_equal(
            found.ravel(), np.array(oracle.weights(data, kind), np.float32)
        )
    file.close()


def make_model(arch, *, untied=False, family="chatml", seed=0):
    """A tiny random model of the architecture with its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    tokenizer = tiny_tokenizer(family)
    config_class, model_class = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    }[arch]
    config = config_class(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        tie_word_embeddings=not untied, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )  # fmt: skip
    torch.manual_seed(seed)
    model = model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norms and biases start at constants, which hides mistakes
                parameter.add_(0.1 * torch.randn(parameter.shape))
            assert name
    return model, tokenizer


def tensors_of(model, arch, kind=0):
    tensors = {}
    for name, parameter in model.named_parameters():
        new = name
        for a, b in BACK.items():
            new = new.replace(a, b)
        array = parameter.detach().numpy()
        if arch == "llama" and ("attn_q" in new or "attn_k" in new):
            array = pairs_from_halves(array, 4 if "attn_q" in new else 2)
        half = kind == 1 and array.ndim == 2
        tensors[new] = (
            array.shape,
            int(half),
            array.astype(np.float16 if half else "f4").tobytes(),
        )
    return tensors


def facts_of(model, arch, tokenizer, **changes):
    config = model.config
    facts = {
        "general.architecture": arch,
        f"{arch}.context_length": config.max_position_embeddings,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.block_count": config.num_hidden_layers,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.num_attention_heads,
        f"{arch}.attention.head_count_kv": config.num_key_value_heads,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{arch}.rope.freq_base": 5000.0,
        **tokenizer_facts(tokenizer),
        **changes,
    }
    return {key: fact for key, fact in facts.items() if fact is not None}


@pytest.fixture(scope="module")
def llama():
    return make_model("llama")


@pytest.fixture
def write(llama, tmp_path):
    """write(**facts) → a GGUF of the tiny llama with those facts changed (None: left out)."""
    model, tokenizer = llama

    def build(name="tiny.gguf", tensors=None, **changes):
        given = tensors_of(model, "llama") if tensors is None else tensors
        facts = facts_of(model, "llama", tokenizer, **changes)
        return write_gguf(tmp_path / name, facts, given)

    return build


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("family", ["chatml", "bos"])
def test_a_whole_model_gives_the_same_logits_and_tokens(tmp_path, arch, untied, family):
    model, tokenizer = make_model(arch, untied=untied, family=family)
    path = write_gguf(
        tmp_path / "m.gguf", facts_of(model, arch, tokenizer), tensors_of(model, arch)
    )
    folder = convert(path, tmp_path / "cache")
    lm = load_language_model(folder)
    ids = torch.randint(0, len(tokenizer), (3, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(lm.model(ids).logits, model(ids).logits)
    tied = (folder / "model.safetensors").stat().st_size
    assert (len(tokenizer) * 32 * 4 * (2 if untied else 1)) < tied
    assert lm.model.config.tie_word_embeddings is not untied
    for text in ("What is the capital of France? 12 é 🙂", "<|im_start|>user\nHi<|im_end|>", ""):
        assert lm.codec.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert lm.codec.tokenizer.chat_template == tokenizer.chat_template
    assert lm.codec.stop_ids == {tokenizer.eos_token_id}
    assert lm.codec.context == 128


@pytest.mark.parametrize("family", ["chatml", "bos", "no_template"])
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_the_tokenizer_of_a_conversion_is_the_one_that_transformers_reads(tmp_path, arch, family):
    from transformers import AutoTokenizer

    model, tokenizer = make_model(arch, family=family)
    path = write_gguf(
        tmp_path / "m.gguf", facts_of(model, arch, tokenizer), tensors_of(model, arch)
    )
    found = read_folder(path, template=None if tokenizer.chat_template else "none")
    ours, theirs = found.codec.tokenizer, AutoTokenizer.from_pretrained(found.folder)
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    for name in ("special_tokens_map", "chat_template", "model_max_length", "padding_side"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours("What? 12 é 🙂")["input_ids"] == tokenizer("What? 12 é 🙂")["input_ids"]


def test_half_precision_weights_are_widened_exactly(llama, write):
    model, _ = llama
    lm = load_language_model(convert(write(tensors=tensors_of(model, "llama", kind=1))))
    for name, value in model.state_dict().items():
        wanted = value.half().float() if value.ndim == 2 else value
        assert torch.equal(lm.model.state_dict()[name], wanted)


def test_rotary_order_is_undone_by_hand():
    # One head of four rows 0..3: the file holds 0, 2, 1, 3.
    rows = np.arange(4, dtype=np.float32)[:, None]
    assert halves_from_pairs(rows[[0, 2, 1, 3]], 1).ravel().tolist() == [0, 1, 2, 3]
    weight = np.random.default_rng(0).standard_normal((24, 5)).astype(np.float32)
    np.testing.assert_array_equal(halves_from_pairs(pairs_from_halves(weight, 3), 3), weight)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PLAUDIT_CACHE", str(tmp_path / "own"))


def test_conversion_happens_once_and_follows_the_content(write, tmp_path):
    path = write()
    folder = convert(path)
    assert folder.parent == tmp_path / "own" / "models"
    assert folder.name.startswith("tiny-")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert convert(path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert convert(path) != folder


def test_a_conversion_killed_at_any_moment_leaves_no_half_cache(write, tmp_path):
    path = write()
    code = (
        "import sys\n"
        "from plaudit.models.formats import gguf\n"
        "read = gguf.GgufFile.read\n"
        "def slow(self, name):\n"
        "    print(name, flush=True)\n"
        "    return read(self, name) if sys.stdin.readline() else None\n"
        "gguf.GgufFile.read = slow\n"
        "gguf.convert(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    for _ in range(3):  # then it is in the middle of the weights, and waits
        assert child.stdout.readline()
        child.stdin.write(b"go on\n")
    assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    models = tmp_path / "own" / "models"
    left = list(models.iterdir())
    assert [p.name.startswith(".tiny-") for p in left] == [True]
    old = time.time() - 7200
    for file in (*left[0].iterdir(), left[0]):
        os.utime(file, (old, old))
    folder = convert(path)
    assert load_language_model(folder).model.num_parameters() > 0
    assert list(models.iterdir()) == [folder]  # what the killed one left behind is gone


@pytest.mark.parametrize("keep", [5, 30, 400, 5000, -1])
def test_a_file_cut_anywhere_is_refused(write, keep, tmp_path):
    path = write()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="cut short"):
        convert(path)
    assert not (tmp_path / "own").exists()


def test_wrong_magic_version_and_byte_order(write):
    path = write()
    raw = path.read_bytes()
    for start, message in (
        (b"GGML", "does not begin with 'GGUF'"),
        (b"GGUF\x01\0\0\0", "version 1"),
        (b"GGUF\0\0\0\x03", "big-endian"),
    ):
        path.write_bytes(start + raw[len(start) :])
        with pytest.raises(UserError, match=message):
            convert(path)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"general.architecture": "gemma3"}, "architecture 'gemma3': read are llama, qwen2"),
        ({"llama.block_count": None}, "does not say 'llama.block_count'"),
        ({"llama.attention.head_count": [4, 4]}, "must be one positive number"),
        ({"llama.rope.scaling.type": "yarn"}, "scales its rotary frequencies"),
        ({"llama.rope.dimension_count": 4}, "rotates only part of each head"),
        ({"llama.embedding_length": 64}, "has shape .* is expected"),
        ({"llama.block_count": 3}, "has no tensor 'blk.2"),
        ({"llama.block_count": 1}, "has a tensor 'blk.1"),
        ({"tokenizer.ggml.model": "llama"}, "tokenizer of kind 'llama'"),
        ({"tokenizer.ggml.pre": "tekken"}, "cuts text as 'tekken'.*smollm, gpt-2, qwen2"),
        ({"tokenizer.ggml.token_type": [1, 1]}, "does not describe its tokenizer"),
        ({"tokenizer.ggml.merges": ["a zzz"]}, "merge 'a zzz' is not of two tokens"),
        ({"tokenizer.ggml.eos_token_id": 9999}, "special token outside its list"),
        ({"general.alignment": 0}, "alignment is 0"),
    ],
)
def test_what_is_not_read_is_said(write, facts, message):
    with pytest.raises(UserError, match=message):
        convert(write(**facts))


def test_other_block_types_are_named(llama, write):
    tensors = tensors_of(llama[0], "llama")
    shape, _, raw = tensors["blk.0.ffn_up.weight"]
    with pytest.raises(UserError, match=r"ffn_up.weight' is stored as Q5_K.*read are F32, F16"):
        convert(write(tensors={**tensors, "blk.0.ffn_up.weight": (shape, 13, raw)}))
    with pytest.raises(UserError, match="does not fill blocks of 256"):
        convert(write(tensors={**tensors, "blk.0.ffn_up.weight": (shape, 12, raw)}))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no GGUF file"):
        convert(tmp_path / "none.gguf")


TEXT = "I've 1234 apples, it's 3.14!\n\n  Don't  stop é🙂 中文字 x=12\t\r\n ŧ"


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["a", "'s", " 123", " b", "!?", "  ", " c"]),
        ("smollm", ["a", "'s", " ", "1", "2", "3", " b", "!?", "  ", " c"]),
        ("qwen2", ["a", "'s", " ", "1", "2", "3", " b", "!?", "  ", " c"]),
        ("llama-bpe", ["a", "'s", " ", "123", " b", "!?", "  ", " c"]),
    ],
)
def test_pre_tokenizers_cut_as_their_models_do(write, pre, pieces):
    folder = convert(write(**{"tokenizer.ggml.pre": pre}))
    tokenizer = load_language_model(folder).codec.tokenizer
    core = tokenizer.backend_tokenizer
    cut = [
        piece.replace("Ġ", " ")
        for piece, _ in core.pre_tokenizer.pre_tokenize_str("a's 123 b!?   c")
    ]
    assert cut == pieces
    assert tokenizer.decode(tokenizer(TEXT)["input_ids"]) == TEXT


def test_user_defined_tokens_are_whole_but_not_special(llama, write):
    facts = tokenizer_facts(llama[1])
    types = list(facts["tokenizer.ggml.token_type"])
    types[1] = 4  # <|im_start|> as a token that users defined
    tokenizer = load_language_model(
        convert(write(**{"tokenizer.ggml.token_type": types}))
    ).codec.tokenizer
    ids = tokenizer("a<|im_start|>")["input_ids"]
    assert ids[-1] == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<|im_start|>"


def test_an_end_of_turn_id_stops_too(write):
    lm = load_language_model(convert(write(**{"tokenizer.ggml.eot_token_id": 0})))
    assert lm.codec.stop_ids == {0, 2}

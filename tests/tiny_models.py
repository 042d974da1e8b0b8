"""Tiny Hugging Face folders made in the test itself: random Llamas with real fast tokenizers.

    folder = tiny_llama(tmp_path / "model")                    # ChatML, pad = eos, no BOS
    folder = tiny_llama(tmp_path / "model", family="bos")      # BOS added by tokenizer and template

Nothing is downloaded and nothing of Plaudit is imported, so every layer's tests can use them.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

Family = Literal["chatml", "bos", "pad", "left", "qwen", "sentencepiece", "no_template"]
"""How the tokenizer behaves; see `FAMILIES`."""

FAMILIES: tuple[Family, ...] = (
    "chatml",  # eos = pad = <|im_end|>, no BOS
    "bos",  # as Llama 3: encoding adds <|begin|>, and the template writes it too
    "pad",  # a pad token of its own
    "left",  # padding and truncation on the left
    "qwen",  # byte-level, pad = <|endoftext|>, two stop ids in generation_config
    "sentencepiece",  # as Llama 2: spaces as U+2581, BOS added, [INST] turns, eos = </s>
    "no_template",  # a base model: no chat template
)

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
INST = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
)

_CORPUS = (
    "The cart keeps its pole upright while the player writes one sentence about a river.",
    "What is the capital of France? The capital of France is Paris.",
    "good bad great terrible happy sad lovely awful wonderful horrible 0 1 2 3 4 5 6 7 8 9",
)


@functools.cache
def _byte_level(size: int, specials: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    return tokenizer


@functools.cache
def _sentencepiece(size: int, specials: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=size + 80, special_tokens=[*specials, *bytes_], show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    # Trained as special, bytes must be ordinary tokens afterwards, or decoding would drop them.
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = [t for t in described["added_tokens"] if t["content"] in specials]
    return Tokenizer.from_str(json.dumps(described))


def tiny_tokenizer(family: Family = "chatml", *, size: int = 300) -> Any:
    """A `PreTrainedTokenizerFast` of about `size` tokens, trained on three sentences."""
    from transformers import PreTrainedTokenizerFast

    chatml = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    facts: dict[str, object] = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    template: str | None = CHATML
    if family == "sentencepiece":
        core = _sentencepiece(size, ("<unk>", "<s>", "</s>"))
        facts = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
        template = INST
    elif family == "bos":
        core = _byte_level(size, (*chatml, "<|begin|>"))
        facts["bos_token"] = "<|begin|>"
        template = "{{ bos_token }}" + CHATML
    elif family == "pad":
        core = _byte_level(size, (*chatml, "<|pad|>"))
        facts["pad_token"] = "<|pad|>"
    else:
        core = _byte_level(size, chatml)
    core = Tokenizer.from_str(core.to_str())
    if "bos_token" in facts:
        bos = str(facts["bos_token"])
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A",
            pair=f"{bos} $A {bos} $B",
            special_tokens=[(bos, core.token_to_id(bos))],
        )
    if family == "left":
        facts |= {"padding_side": "left", "truncation_side": "left"}
    if family == "qwen":
        facts["pad_token"] = "<|endoftext|>"
    if family == "no_template":
        facts, template = {"eos_token": "<|endoftext|>"}, None
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, clean_up_tokenization_spaces=False, **facts
    )
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def tiny_llama(
    folder: str | Path,
    *,
    seed: int = 0,
    vocab: int | None = None,
    width: int = 32,
    layers: int = 4,
    heads: int = 4,
    kv_heads: int = 2,
    context: int = 256,
    untied: bool = False,
    family: Family = "chatml",
) -> Path:
    """Write a whole model folder with random float32 weights and return its path.

    `vocab` is the number of embedding rows: at least the tokenizer's (about 300), which is the
    default. `untied` gives the output layer weights of its own.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = Path(folder)
    tokenizer = tiny_tokenizer(family)
    eos = tokenizer.eos_token_id
    rows = len(tokenizer) if vocab is None else vocab
    if rows < len(tokenizer):
        raise ValueError(f"vocab={rows} is less than the tokenizer's {len(tokenizer)} tokens")
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context,
        tie_word_embeddings=not untied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=eos,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = (
        [eos, tokenizer.convert_tokens_to_ids("<|endoftext|>")] if family == "qwen" else eos
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

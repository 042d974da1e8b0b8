"""The fast tokenizer that a GGUF file describes: byte-level BPE with its special tokens.

The file names its pre-tokenizer (how text is cut before merging) without defining it; only those
whose definition is certain are built, because a near miss would tokenise almost rightly.
Sources: the tokenizer.json files of SmolLM2, GPT-2, Qwen2 and Llama 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plaudit.records.errors import UserError

_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = _QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")  # digits in threes is the one difference
_KNOWN = ("smollm", "gpt-2", "qwen2", "llama-bpe")
_ALIASES = {"gpt2": "gpt-2", "llama3": "llama-bpe", "llama-v3": "llama-bpe"}
_CONTROL, _USER_DEFINED = 3, 4


def build_tokenizer(path: Path, facts: dict[str, Any]) -> Any:
    """A `PreTrainedTokenizerFast` from the file's `tokenizer.*` facts.

    Raises UserError for another kind of tokenizer, an unknown pre-tokenizer or damaged lists.
    """
    from tokenizers import AddedToken, Tokenizer, models, normalizers
    from transformers import PreTrainedTokenizerFast

    kind = facts.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise UserError(f"{path} holds a tokenizer of kind {kind!r}: read is 'gpt2' (byte-level)")
    pre = facts.get("tokenizer.ggml.pre", "default")
    pre = _ALIASES.get(pre, pre)
    if pre not in _KNOWN:
        raise UserError(
            f"{path} cuts text as {pre!r} before tokenising: read are {', '.join(_KNOWN)}"
        )
    tokens, types, merges = _lists(path, facts)
    core = Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=merges,
            ignore_merges=pre == "llama-bpe",
        )
    )
    if pre == "qwen2":
        core.normalizer = normalizers.NFC()
    core.pre_tokenizer, core.decoder = _cutting(pre)
    for token, type_ in zip(tokens, types, strict=True):
        if type_ == _CONTROL:
            core.add_special_tokens([AddedToken(token, special=True, normalized=False)])
        elif type_ == _USER_DEFINED:
            core.add_tokens([AddedToken(token, special=False, normalized=False)])
    named = {
        f"{name}_token": tokens[facts[key]]
        for name, key in (
            ("bos", "tokenizer.ggml.bos_token_id"),
            ("eos", "tokenizer.ggml.eos_token_id"),
            ("unk", "tokenizer.ggml.unknown_token_id"),
            ("pad", "tokenizer.ggml.padding_token_id"),
        )
        if key in facts
    }
    if "bos_token" in named and facts.get("tokenizer.ggml.add_bos_token", pre == "llama-bpe"):
        _add_bos(core, named["bos_token"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, clean_up_tokenization_spaces=False, **named
    )
    if facts.get("tokenizer.chat_template"):
        tokenizer.chat_template = facts["tokenizer.chat_template"]
    return tokenizer


def _cutting(pre: str) -> tuple[Any, Any]:
    """The pre-tokenizer named `pre`, and the decoder that undoes it."""
    from tokenizers import Regex, decoders, pre_tokenizers

    cut: Any
    if pre == "gpt-2":
        cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    elif pre == "smollm":
        cut = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    else:
        regex = Regex(_QWEN2 if pre == "qwen2" else _LLAMA3)
        cut = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(regex, behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    return cut, decoders.ByteLevel()


def _add_bos(core: Any, bos: str) -> None:
    from tokenizers import processors

    core.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, core.token_to_id(bos))],
    )


def _lists(path: Path, facts: dict[str, Any]) -> tuple[list[str], list[int], list[tuple[str, str]]]:
    """Tokens, their types and the merges, checked to fit together."""
    tokens, types, merges = (
        facts.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type", "merges")
    )
    if not tokens or not types or merges is None or len(types) != len(tokens):
        raise UserError(f"{path} does not describe its tokenizer (tokens, token_type, merges)")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    known = set(tokens)
    if len(known) != len(tokens):
        raise UserError(f"{path} is damaged: a token is listed twice")
    for pair in pairs:
        if len(pair) != 2 or not known.issuperset((*pair, "".join(pair))):
            raise UserError(f"{path} is damaged: the merge {' '.join(pair)!r} is not of two tokens")
    ids = [facts[key] for key in facts if key.endswith("_token_id")]
    if any(not isinstance(i, int) or not 0 <= i < len(tokens) for i in ids):
        raise UserError(f"{path} is damaged: it names a special token outside its list")
    return tokens, types, pairs

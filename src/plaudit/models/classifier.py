"""Reward models as folders: the standard sequence classifier, or the bare decoder and a score.

A reward model is saved as the sequence classifier with one label that `transformers` has for the
model's kind. Its score is the head's output at the last token that is not `pad_token_id`, found so
by `transformers`; so the pad token must be none that an answer can end with. A policy can draw any
token of its vocabulary, and an answer cut by the length limit ends with whatever was drawn last:
so the reward model's embedding gets one row more, and its tokenizer one token, to pad with.

About half of the kinds of causal language models have no such class, or one that reads its score
elsewhere. For them the folder holds the decoder, as `AutoModel` reads it, and score.safetensors
with the head's `weight` [1, H]. `load_classifier` reads either.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plaudit.models.formats.save import save_tokenizer, write_model
from plaudit.models.text import TextCodec, pad_right
from plaudit.records.collecting import collecting_later
from plaudit.records.errors import UserError
from plaudit.records.folders import new_folder

if TYPE_CHECKING:
    from plaudit.models.formats.load import LanguageModel

SCORE_FILE = "score.safetensors"
"""Beside a decoder without a classifier class: the head's `weight` [1, H]."""


def check_classifier(lm: LanguageModel) -> None:
    """UserError unless a reward model over this language model can be saved and told its texts."""
    check_answered(lm.codec)
    if standard_class(lm.model) is None:
        from transformers import AutoModel

        try:
            with torch.device("meta"):
                AutoModel.from_config(lm.model.config)
        except (ValueError, KeyError, TypeError) as error:
            raise _without_class(type(lm.model)) from error


def check_answered(codec: TextCodec) -> None:
    """UserError where the template cannot render an answered prompt: no text could be scored."""
    if codec.template is not None:
        codec.completion_ids("Hi", "Ho")


@collecting_later()
def check_kind(config: Any) -> None:
    """`check_classifier` as far as a config tells: UserError for a kind that has neither class."""
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        MODEL_MAPPING,
    )

    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    savable = (MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, MODEL_MAPPING)
    if kind is not None and not any(type(config) in mapping for mapping in savable):
        raise _without_class(kind)


def _without_class(kind: type[Any]) -> UserError:
    return UserError(
        f"a reward model of {kind.__name__} cannot be saved, as transformers has neither a "
        "sequence classifier nor a bare decoder of its kind: use another model"
    )


def standard_class(causal_model: Any) -> type[Any] | None:
    """The kind's sequence classifier, where it scores a conversation by its last token; else None.

    Tried out: a classifier around this very decoder, with a known head, on a few tokens.
    """
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

    config = _one_label(causal_model.config, pad_id=0)
    kind: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING.get(type(config), None)
    if kind is None:
        return None
    base = causal_model.base_model
    width = causal_model.get_output_embeddings().weight.shape[1]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1, width, generator=generator).to(base.dtype) / width**0.5
    ids = torch.tensor([[1, 2, 3, 4, 5]], device=base.device)
    try:
        with torch.device("meta"):
            scorer = kind(config)
        scorer.score.load_state_dict({"weight": weight}, strict=True, assign=True)
        setattr(scorer, kind.base_model_prefix, base)
        with torch.no_grad():
            score = scorer.eval()(input_ids=ids).logits.double()
            hidden = base(input_ids=ids, use_cache=False).last_hidden_state[0, -1]
    except Exception:  # a class of another shape: no head called score, or another width
        return None
    wanted = (hidden @ weight[0]).double()
    close = torch.allclose(score.flatten()[0], wanted, rtol=1e-3, atol=1e-3)
    return kind if score.numel() == 1 and close else None


def save_classifier(
    folder: str | Path,
    causal_model: Any,
    codec: TextCodec,
    score_weight: Tensor,
    layers_state: Mapping[str, Tensor],
) -> Path:
    """Write a reward model; returns the folder.

    The decoder is that of `causal_model` (embedding, layers, final norm) with `layers_state` laid
    over it: tensors by their names in it, such as "layers.29.mlp.up_proj.weight" or "norm.weight".
    `score_weight` is [1, H]. The tokenizer saved beside it pads with a token of its own;
    `AutoModelForSequenceClassification`, where the kind has one, then scores the last real token.
    """
    from safetensors.torch import save_file
    from transformers import AutoModel

    base = causal_model.base_model
    state = dict(base.state_dict())
    unknown = sorted(set(layers_state) - set(state))
    assert not unknown, f"the backbone has no tensor {unknown[0]!r}"
    state |= layers_state
    tokenizer, pad_id = classifier_tokenizer(codec)
    embedding = _name_of(base, base.get_input_embeddings().weight)
    if pad_id >= len(state[embedding]):
        state[embedding] = torch.nn.functional.pad(state[embedding], (0, 0, 0, 1))
    config = _one_label(causal_model.config, pad_id=pad_id)
    config.vocab_size = len(state[embedding])
    kind = standard_class(causal_model)
    weight = score_weight.detach().to(base.dtype)
    with torch.device("meta"):  # shapes only: the weights are assigned, not copied
        made_from: Any = AutoModel.from_config(config) if kind is None else kind(config)
    made_from = made_from.to(base.dtype)
    decoder = made_from if kind is None else made_from.base_model
    decoder.load_state_dict(state, strict=True, assign=True)
    if kind is not None:
        made_from.score.load_state_dict({"weight": weight}, strict=True, assign=True)
    place = Path(folder)
    with new_folder(place) as made:
        write_model(made, made_from)
        if kind is None:
            save_file({"weight": weight}, made / SCORE_FILE, metadata={"format": "pt"})
        (made / "generation_config.json").unlink(missing_ok=True)
        save_tokenizer(made, tokenizer)
    return place


@dataclass(frozen=True)
class Classifier:
    """A saved reward model: scores of whole conversations."""

    decoder: Any
    weight: Tensor
    tokenizer: Any

    @torch.no_grad()
    def __call__(self, conversations: Sequence[Sequence[int]]) -> Tensor:
        """The score [B] of each conversation's token ids, read at its last token."""
        ids, mask = pad_right(conversations, int(self.tokenizer.pad_token_id))
        device = self.weight.device
        out = self.decoder(input_ids=ids.to(device), attention_mask=mask.long().to(device))
        last = mask.sum(1) - 1
        hidden: Tensor = out.last_hidden_state[torch.arange(len(ids)), last.to(device)]
        return hidden @ self.weight[0]


def load_classifier(folder: str | Path) -> Classifier:
    """Read what `save_classifier` wrote, of either form; UserError where it is neither."""
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    place = Path(folder)
    if not (place / "config.json").is_file():
        raise UserError(f"{place} holds no reward model: it has no config.json")
    tokenizer = AutoTokenizer.from_pretrained(place)
    if (place / SCORE_FILE).is_file():
        weight = load_file(place / SCORE_FILE)["weight"]
        return Classifier(AutoModel.from_pretrained(place).eval(), weight, tokenizer)
    try:
        scorer: Any = AutoModelForSequenceClassification.from_pretrained(place).eval()
        weight = scorer.score.weight.detach()
    except (ValueError, AttributeError) as error:
        raise UserError(f"{place} holds no reward model that Plaudit wrote") from error
    if weight.shape[0] != 1:
        raise UserError(f"{place} gives {weight.shape[0]} numbers a text; a reward model gives one")
    return Classifier(scorer.base_model, weight, tokenizer)


def classifier_tokenizer(codec: TextCodec) -> tuple[Any, int]:
    """The tokenizer to save with a reward model, and its pad id: a new token, after all others.

    Raises UserError where the template cannot render an answered prompt, as no given text could
    then be scored.
    """
    check_answered(codec)
    tokenizer = copy.deepcopy(codec.tokenizer)
    known, name = tokenizer.get_vocab(), "<|pad|>"
    while name in known:
        name = name.replace("pad", "pad_", 1)
    tokenizer.add_special_tokens({"pad_token": name})
    return tokenizer, int(tokenizer.pad_token_id)


def _one_label(config: Any, *, pad_id: int) -> Any:
    """The config with one label, and with a pad token."""
    made = type(config).from_dict(config.to_dict())
    made.num_labels, made.pad_token_id = 1, pad_id
    made.id2label, made.label2id = {0: "score"}, {"score": 0}
    return made


def _name_of(module: Any, tensor: Tensor) -> str:
    names: list[str] = [name for name, value in module.named_parameters() if value is tensor]
    return names[0]

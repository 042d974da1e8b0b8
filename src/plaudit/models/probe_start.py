"""A reward model's start: a linear probe on the mean token, written into the top's own weights.

With a thousand comparisons, gradient steps do not teach the last token to gather the words before
it; a linear probe on their mean has that built in, and is found exactly. In a Llama-shaped top the
probe *is* a setting of the weights:

    first layer   q = 0, so attention is uniform over the tokens seen: the mean of RMSNorm(h);
                  one value row holds the probe, one output column adds α·s to coordinate j
    other parts   attention and MLP outputs are 0: every layer starts as the identity
    head          reads coordinate j after the final norm, scaled so that the score is about s

Training then starts from the probe's ranking, with every weight free to improve on it (a head
before its features: Kumar et al. 2022, 2202.10054). The construction is ours.
Left out: decoders of another shape, which start from a zero head and their own layers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from plaudit.models.backbone import Decoder, ScalarHead, gather_places
from plaudit.models.layout import Layout

SIGNAL_TO_NOISE = 10.0
"""s.d. of the written score over that of the coordinate's own content."""


def can_start_from_probe(top: Decoder) -> bool:
    """True where the top has the modules that the construction writes, and sees whole answers."""
    layers: Any = getattr(top.base, "layers", None)
    norm: Any = getattr(top.base, "norm", None)
    config: Any = top.base.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) and not hasattr(config, "layer_types")
    if layers is None or getattr(norm, "weight", None) is None or windowed:
        return False
    wanted = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")
    modules = [dict(layer.named_modules()) for layer in layers]
    linear = all(
        isinstance(of_layer.get(name), nn.Linear) for of_layer in modules for name in wanted
    )
    return linear and "input_layernorm" in modules[0] and kinds == {"full_attention"}


def mean_token(top: Decoder, hidden: Tensor, layout: Layout) -> Tensor:
    """Mean of the first layer's normed input over an answer's prompt and tokens: [b, H].

    `hidden` [R, L, H] are the trunk's states in the layout's places.
    """
    base: Any = top.base
    normed: Tensor = base.layers[0].input_layernorm(hidden)
    flat = normed.reshape(-1, normed.shape[-1])
    means = []
    for i, own in enumerate(layout.own):
        places = own[layout.there[i]]
        row = int(layout.last[i]) // layout.token.shape[1]
        num_prompt = layout.prompt_lengths[row]
        start = row * layout.token.shape[1]
        total = flat[start : start + num_prompt].sum(0) + flat[places].sum(0)
        means.append(total / (num_prompt + len(places)))
    return torch.stack(means)


def last_hidden(hidden: Tensor, layout: Layout) -> Tensor:
    """The trunk's state at each answer's last chosen token: [b, H]."""
    return gather_places(hidden, layout.last)


@torch.no_grad()
def write_probe(
    top: Decoder, head: ScalarHead, weight: Tensor, *, mean: Tensor, last: Tensor
) -> None:
    """Make the last token's score about `weight` · (mean token), up to a constant.

    `weight` [H] acts on `mean` [B, H] (from `mean_token`); `last` [B, H] are the trunk's states at
    the last tokens of the same answers, from which a quiet coordinate and the scales are taken.
    """
    base: Any = top.base
    for layer in base.layers:
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        for module in (layer.self_attn.o_proj, layer.mlp.down_proj):
            if module.bias is not None:
                module.bias.zero_()
    # The part along the mean of all answers is the same for every answer up to noise, but the
    # final norm would multiply it by each token's own scale: it is taken out.
    centre = mean.mean(0)
    weight = weight - (weight @ centre) / (centre @ centre) * centre
    score = mean @ weight
    gain = base.norm.weight
    quiet = last.std(0) / gain.abs().clamp_min(1e-6)
    j = int(quiet.argmin())
    alpha = SIGNAL_TO_NOISE * last[:, j].std() / score.std().clamp_min(1e-8)
    attention = base.layers[0].self_attn
    for module in (attention.q_proj, attention.v_proj):
        if module.bias is not None:
            module.bias.zero_()
    attention.q_proj.weight.zero_()
    attention.v_proj.weight[0] = weight
    attention.o_proj.weight[j, 0] = alpha
    written = last.clone()
    written[:, j] += alpha * score
    rms = written.pow(2).mean(-1).sqrt()
    head.weight.zero_()
    head.weight[0, j] = rms.mean() / (gain[j] * alpha)

"""What lies between the matrix products of a decode step, on a processor in float32.

    attention   softmax(q · K) · V over a prompt, which its answers share, and a row's own tokens
    norm        x / sqrt(mean x² + ε) · w
    gated       silu(g) · u,   silu(g) = g / (1 + exp(−g))

One call does for a layer what takes some twenty small operations of torch. Arrays are flat; shapes
are told in brackets. Keys lie in blocks of 16 positions, [blocks, D, 16], so that the products of a
query with 16 of them are one vector; values lie as [positions, D]. D is a multiple of 32. Rows are
found by their slot in the cache, so that none is ever moved.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plaudit.models.sampling.vectors import (
    LANES,
    Floats,
    add,
    compiled,
    div,
    first,
    fma,
    lanes,
    larger,
    largest,
    load,
    mul,
    power_of_two,
    prefetch,
    rounded,
    spread,
    store,
    sub,
    total,
)

Ints = NDArray[np.int64]

BLOCK = LANES
"""Positions in a block of keys: the lanes of a vector."""

UNIT = 32
"""What a head's dimension must be a multiple of."""

_LOWEST = np.float32(-87.0)  # exp of less is no normal float32
_LOG2_E = np.float32(1 / math.log(2))
# ln 2 in two parts, whose first times a whole number is exact (Cody & Waite 1980).
_LN_2 = np.float32(355 / 512)
_LN_2_REST = np.float32(math.log(2) - 355 / 512)
_TAYLOR = tuple(np.float32(1 / math.factorial(k)) for k in range(8))
_NONE = np.float32(-np.inf)
_ZERO, _ONE = np.float32(0), np.float32(1)


@compiled
def _exp(x: Any) -> Any:
    """exp(x) to 2e-7 of itself, of x brought into [-87, 87]: 2^n times a polynomial in the rest."""
    zero, low = lanes(_ZERO), lanes(_LOWEST)
    x = sub(zero, larger(sub(zero, larger(x, low)), low))
    n = rounded(mul(x, lanes(_LOG2_E)))
    rest = fma(n, lanes(-_LN_2_REST), fma(n, lanes(-_LN_2), x))
    p = lanes(_TAYLOR[7])
    p = fma(p, rest, lanes(_TAYLOR[6]))
    p = fma(p, rest, lanes(_TAYLOR[5]))
    p = fma(p, rest, lanes(_TAYLOR[4]))
    p = fma(p, rest, lanes(_TAYLOR[3]))
    p = fma(p, rest, lanes(_TAYLOR[2]))
    p = fma(p, rest, lanes(_ONE))
    p = fma(p, rest, lanes(_ONE))
    return mul(p, power_of_two(n))


@compiled
def _scores(
    queries: Floats,
    q: Ints,
    begin: int,
    end: int,
    keys: Floats,
    k: int,
    dim: int,
    num: int,
    out: Floats,
    o: Ints,
    shift: int,
    ahead: int,
) -> None:
    """out[o[i] + shift + t] = query q[i] · key t, of queries begin … end − 1 and `num` keys.

    Four queries share what is read of the keys; a fourth that is not there is the last once more.
    `ahead` is how far behind these keys those lie that come next: they are asked for meanwhile, as
    the processor does not foresee a jump.
    """
    if end - begin == 1:
        _score(queries, q[begin], keys, k, dim, num, out, o[begin] + shift, ahead)
        return
    for m in range(begin, end, 4):
        i1, i2, i3 = min(m + 1, end - 1), min(m + 2, end - 1), min(m + 3, end - 1)
        q0, q1, q2, q3 = q[m], q[i1], q[i2], q[i3]
        at = k
        for t in range(0, num, BLOCK):
            a0 = a1 = a2 = a3 = lanes(_ZERO)
            for d in range(dim):
                x = load(keys, at)
                prefetch(keys, at + ahead)
                at += BLOCK
                a0 = fma(spread(queries, q0 + d), x, a0)
                a1 = fma(spread(queries, q1 + d), x, a1)
                a2 = fma(spread(queries, q2 + d), x, a2)
                a3 = fma(spread(queries, q3 + d), x, a3)
            store(out, o[m] + shift + t, a0)
            store(out, o[i1] + shift + t, a1)
            store(out, o[i2] + shift + t, a2)
            store(out, o[i3] + shift + t, a3)


@compiled
def _score(
    queries: Floats,
    q: int,
    keys: Floats,
    k: int,
    dim: int,
    num: int,
    out: Floats,
    o: int,
    ahead: int,
) -> None:
    """out[o + t] = query · key t of one query."""
    at = k
    for t in range(0, num, BLOCK):
        a = b = c = e = lanes(_ZERO)
        for d in range(0, dim, 4):
            a = fma(spread(queries, q + d), load(keys, at), a)
            b = fma(spread(queries, q + d + 1), load(keys, at + BLOCK), b)
            c = fma(spread(queries, q + d + 2), load(keys, at + 2 * BLOCK), c)
            e = fma(spread(queries, q + d + 3), load(keys, at + 3 * BLOCK), e)
            for i in range(0, 4 * BLOCK, BLOCK):
                prefetch(keys, at + ahead + i)
            at += 4 * BLOCK
        store(out, o + t, add(add(a, c), add(b, e)))


@compiled
def _mixtures(
    weights: Floats,
    w: Ints,
    begin: int,
    end: int,
    shift: int,
    values: Floats,
    v: int,
    dim: int,
    num: int,
    out: Floats,
    o: Ints,
    ahead: int,
) -> None:
    """out[o[i]] += Σ_t weights[w[i] + shift + t] · value t, of rows begin … end − 1; see `_scores`."""
    if end - begin == 1:
        _mixture(weights, w[begin] + shift, values, v, dim, num, out, o[begin], ahead)
        return
    for m in range(begin, end, 4):
        i1, i2, i3 = min(m + 1, end - 1), min(m + 2, end - 1), min(m + 3, end - 1)
        w0, w1, w2, w3 = w[m] + shift, w[i1] + shift, w[i2] + shift, w[i3] + shift
        for d in range(0, dim, BLOCK):
            a0, a1 = load(out, o[m] + d), load(out, o[i1] + d)
            a2, a3 = load(out, o[i2] + d), load(out, o[i3] + d)
            at = v + d
            for t in range(num):
                x = load(values, at)
                prefetch(values, at + ahead)
                at += dim
                a0 = fma(spread(weights, w0 + t), x, a0)
                a1 = fma(spread(weights, w1 + t), x, a1)
                a2 = fma(spread(weights, w2 + t), x, a2)
                a3 = fma(spread(weights, w3 + t), x, a3)
            store(out, o[m] + d, a0)
            store(out, o[i1] + d, a1)
            store(out, o[i2] + d, a2)
            store(out, o[i3] + d, a3)


@compiled
def _mixture(
    weights: Floats,
    w: int,
    values: Floats,
    v: int,
    dim: int,
    num: int,
    out: Floats,
    o: int,
    ahead: int,
) -> None:
    """out[o] += Σ_t weights[w + t] · value t of one row of weights."""
    even = num - num % 2
    for d in range(0, dim, UNIT):
        at = v + d
        a, b = load(out, o + d), load(out, o + d + BLOCK)
        c = e = lanes(_ZERO)
        for t in range(0, even, 2):
            s, r = spread(weights, w + t), spread(weights, w + t + 1)
            a, b = fma(s, load(values, at), a), fma(s, load(values, at + BLOCK), b)
            prefetch(values, at + ahead)
            prefetch(values, at + ahead + BLOCK)
            prefetch(values, at + ahead + dim)
            prefetch(values, at + ahead + dim + BLOCK)
            at += dim
            c, e = fma(r, load(values, at), c), fma(r, load(values, at + BLOCK), e)
            at += dim
        if even < num:
            s = spread(weights, w + even)
            a, b = fma(s, load(values, at), a), fma(s, load(values, at + BLOCK), b)
        store(out, o + d, add(a, c))
        store(out, o + d + BLOCK, add(b, e))


@compiled
def _largest(x: Floats, o: int, num: int) -> Any:
    """The largest of x[o : o + num]."""
    top = lanes(_NONE)
    for t in range(0, num, BLOCK):
        top = larger(first(load(x, o + t), num - t, _NONE), top)
    return largest(top)


@compiled
def _exponentials(x: Floats, o: int, num: int, top: Any) -> Any:
    """Puts exp(x − top) in place of x[o : o + num], and gives their sum."""
    sums, low = lanes(_ZERO), lanes(top)
    for t in range(0, num, BLOCK):
        y = first(_exp(sub(load(x, o + t), low)), num - t, _ZERO)
        store(x, o + t, y)
        sums = add(sums, y)
    return total(sums)


@compiled
def _scale(x: Floats, o: int, num: int, factor: Any) -> None:
    by = lanes(factor)
    for t in range(0, num, BLOCK):
        store(x, o + t, mul(load(x, o + t), by))


@compiled
def _softmax(x: Floats, a: int, num_a: int, b: int, num_b: int) -> None:
    """One softmax over x[a : a + num_a] and x[b : b + num_b]."""
    top = max(_largest(x, a, num_a), _largest(x, b, num_b))
    share = _ONE / (_exponentials(x, a, num_a, top) + _exponentials(x, b, num_b, top))
    _scale(x, a, num_a, share)
    _scale(x, b, num_b, share)


@compiled
def _rotate(
    qkv: Floats, x: int, dim: int, group: int, cosine: Floats, sine: Floats, c: int, scale: float
) -> None:
    """Turns the halves of `group` queries and of the key behind them (Su et al. 2021); queries are
    also multiplied by `scale`."""
    half = dim // 2
    for g in range(group + 1):
        size = lanes(scale if g < group else 1.0)
        a = x + g * dim
        b = a + half
        for d in range(0, half, BLOCK):
            u, v = mul(load(qkv, a + d), size), mul(load(qkv, b + d), size)
            cos, sin = load(cosine, c + d), load(sine, c + d)
            store(qkv, a + d, sub(mul(u, cos), mul(v, sin)))
            store(qkv, b + d, add(mul(v, cos), mul(u, sin)))


@compiled
def _keep(qkv: Floats, x: int, dim: int, keys: Floats, values: Floats, own: int, n: int) -> None:
    """Puts the key at qkv[x] and the value behind it at position n of a row's cache."""
    place = own + n // BLOCK * BLOCK * dim + n % BLOCK
    for d in range(dim):
        keys[place + BLOCK * d] = qkv[x + d]
    for d in range(0, dim, BLOCK):
        store(values, own + n * dim + d, load(qkv, x + dim + d))


@compiled
def attend(
    qkv: Floats,
    cosine: Floats,
    sine: Floats,
    scale: float,
    order: Ints,
    starts: Ints,
    prompt: Ints,
    length: Ints,
    prompt_keys: Floats,
    prompt_values: Floats,
    slot: Ints,
    count: Ints,
    keys: Floats,
    values: Floats,
    sizes: tuple[int, int, int, int, int],
    out: Floats,
) -> None:
    """One token of each row: its key and value join the cache, and its queries read all before it.

    `sizes` are the key-value heads, the queries that share a key, D, and the rooms for positions of
    a prompt and of a row, multiples of 16. `qkv` [R, heads, group + 2, D] holds queries, key and
    value, not rotated yet; `cosine` and `sine` [R, D/2] rotate them; `scale` multiplies the scores.
    Rows order[starts[i] : starts[i + 1]] answer prompt[i], of length[i], whose keys and values are
    in `prompt_keys` and `prompt_values` [P, heads, room, D]. Row r has slot[r] in `keys` and
    `values` [S, heads, room, D], and is at its position count[r]. `out` is [R, heads, group, D].
    """
    heads, group, dim, prompt_room, room = sizes
    most = 0
    for i in range(len(prompt)):
        most = max(most, (starts[i + 1] - starts[i]) * group)
    width = prompt_room + room
    score = np.empty(most * width, np.float32)
    q, w, o = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    for i in range(len(prompt)):
        begin, end, read = starts[i], starts[i + 1], length[i]
        for h in range(heads):
            num = 0
            for j in range(begin, end):
                r = order[j]
                x = (r * heads + h) * (group + 2) * dim
                _rotate(qkv, x, dim, group, cosine, sine, r * dim // 2, scale)
                for g in range(group):
                    q[num], w[num] = x + g * dim, num * width
                    o[num] = ((r * heads + h) * group + g) * dim
                    for d in range(0, dim, BLOCK):
                        store(out, o[num] + d, lanes(_ZERO))
                    num += 1
            at = (prompt[i] * heads + h) * prompt_room * dim
            after = (i * heads + h + 1) % (len(prompt) * heads)
            after = (prompt[after // heads] * heads + after % heads) * prompt_room * dim - at
            _scores(qkv, q, 0, num, prompt_keys, at, dim, read, score, w, 0, after)
            for j in range(begin, end):
                r, a = order[j], (j - begin) * group
                own, n = (slot[r] * heads + h) * room * dim, count[r] + 1
                _keep(qkv, q[a] + group * dim, dim, keys, values, own, n - 1)
                if j + 1 < end:
                    ahead = (slot[order[j + 1]] * heads + h) * room * dim - own
                elif h + 1 < heads:
                    ahead = (slot[order[begin]] * heads + h + 1) * room * dim - own
                else:
                    ahead = slot[order[end % len(order)]] * heads * room * dim - own
                _scores(qkv, q, a, a + group, keys, own, dim, n, score, w, prompt_room, ahead)
                for m in range(a, a + group):
                    _softmax(score, w[m], read, w[m] + prompt_room, n)
                _mixtures(score, w, a, a + group, prompt_room, values, own, dim, n, out, o, ahead)
            _mixtures(score, w, 0, num, 0, prompt_values, at, dim, read, out, o, after)


@compiled
def normed(x: Floats, weight: Floats, epsilon: float, out: Floats) -> None:
    """out = x / sqrt(mean x² + ε) · w of rows [R, H], H = len(w) a multiple of 16."""
    width = len(weight)
    for row in range(0, len(x), width):
        a = b = lanes(_ZERO)
        whole = width - width % (2 * BLOCK)
        for d in range(0, whole, 2 * BLOCK):
            y, z = load(x, row + d), load(x, row + d + BLOCK)
            a, b = fma(y, y, a), fma(z, z, b)
        if whole < width:
            y = load(x, row + whole)
            a = fma(y, y, a)
        mean = total(add(a, b)) / np.float32(width)
        size = lanes(_ONE / np.float32(math.sqrt(mean + np.float32(epsilon))))
        for d in range(0, width, BLOCK):
            store(out, row + d, mul(mul(load(x, row + d), size), load(weight, d)))


@compiled
def gated(both: Floats, width: int) -> None:
    """silu(g) · u of rows [R, 2, width] that hold g and u; put where g was, rows [R, width].

    Width is a multiple of 16. Rows move to the front, never onto what is still to be read.
    """
    for r in range(len(both) // (2 * width)):
        a, to = 2 * r * width, r * width
        for d in range(0, width, BLOCK):
            g, u = load(both, a + d), load(both, a + width + d)
            sigmoid = div(lanes(_ONE), add(lanes(_ONE), _exp(sub(lanes(_ZERO), g))))
            store(both, to + d, mul(mul(g, sigmoid), u))

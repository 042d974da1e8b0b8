"""Sixteen floats as one value in numba's kernels.

    x = load(array, i)        16 floats of a flat contiguous array from index i on
    y = fma(spread(a, j), x, y)

The processor multiplies 4 to 16 floats at once; which loops it does so in is up to the compiler
unless they are told so. These vectors are what LLVM calls <16 x float>: one register with AVX-512,
two with AVX2. Nothing is checked: an index outside the array reads what lies there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils, types
from numba.core.datamodel import models, register_default
from numba.extending import intrinsic
from numpy.typing import NDArray

F = TypeVar("F", bound=Callable[..., Any])
Floats = NDArray[np.float32]

LANES = 16
_INT = ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(_INT, LANES)


class Vector(types.Type):
    """The type of a value of sixteen floats."""

    def __init__(self) -> None:
        super().__init__(name="Float32x16")


vector = Vector()


@register_default(Vector)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    """How numba keeps one: as the processor does."""

    def __init__(self, manager: Any, of: Any) -> None:
        super().__init__(manager, of, _FLOATS)


def _in_every_lane(builder: Any, x: Any, kind: Any = _FLOATS) -> Any:
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, x, ir.Constant(_INT, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_INTS, [0] * LANES))


def _address(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Of the element that the first two arguments, an array and an index, name."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    index = context.cast(builder, args[1], signature.args[1], types.intp)
    return builder.gep(array.data, [index])


def _by_name(builder: Any, name: str, *args: Any) -> Any:
    """A call of one of LLVM's own functions, as in llvm.fma.v16f32."""
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * len(args))
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v{LANES}f32")
    return builder.call(function, args)


@intrinsic  # type: ignore[untyped-decorator]
def load(typing: Any, array: Any, index: Any) -> Any:
    """The 16 floats of a flat array from `index` on."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature, args)
        x = builder.load(builder.bitcast(address, _FLOATS.as_pointer()))
        x.align = 4
        return x

    return vector(array, index), make


@intrinsic  # type: ignore[untyped-decorator]
def store(typing: Any, array: Any, index: Any, x: Any) -> Any:
    """Puts 16 floats into a flat array from `index` on."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature, args)
        builder.store(args[2], builder.bitcast(address, _FLOATS.as_pointer())).align = 4
        return context.get_dummy_value()

    return types.void(array, index, x), make


@intrinsic  # type: ignore[untyped-decorator]
def store_bytes(typing: Any, array: Any, index: Any, x: Any) -> Any:
    """Puts 16 whole numbers from 0 to 255 into a flat array of bytes from `index` on."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        narrow = ir.VectorType(ir.IntType(8), LANES)
        address = _address(context, builder, signature, args)
        numbers = builder.trunc(builder.fptosi(args[2], _INTS), narrow)
        builder.store(numbers, builder.bitcast(address, narrow.as_pointer())).align = 1
        return context.get_dummy_value()

    return types.void(array, index, x), make


@intrinsic  # type: ignore[untyped-decorator]
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Asks for the floats of a flat array around `index`, which will be read soon."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, _INT, _INT, _INT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        address = builder.bitcast(_address(context, builder, signature, args), byte)
        read, soon, data = (ir.Constant(_INT, n) for n in (0, 2, 1))
        builder.call(function, [address, read, soon, data])
        return context.get_dummy_value()

    return types.void(array, index), make


@intrinsic  # type: ignore[untyped-decorator]
def spread(typing: Any, array: Any, index: Any) -> Any:
    """The float of a flat array at `index`, in every lane."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _in_every_lane(builder, builder.load(_address(context, builder, signature, args)))

    return vector(array, index), make


@intrinsic  # type: ignore[untyped-decorator]
def lanes(typing: Any, x: Any) -> Any:
    """One float in every lane."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _in_every_lane(builder, context.cast(builder, args[0], x, types.float32))

    return vector(x), make


@intrinsic  # type: ignore[untyped-decorator]
def first(typing: Any, x: Any, count: Any, other: Any) -> Any:
    """`x` in the first `count` lanes, the float `other` in the rest."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = context.cast(builder, args[1], count, types.int32)
        fill = context.cast(builder, args[2], other, types.float32)
        mine = builder.icmp_signed(
            "<", ir.Constant(_INTS, list(range(LANES))), _in_every_lane(builder, number, _INTS)
        )
        return builder.select(mine, args[0], _in_every_lane(builder, fill))

    return vector(x, count, other), make


def _of_vectors(number: int, make_value: Callable[..., Any]) -> Any:
    """An operation on `number` vectors that gives a vector."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return make_value(builder, *args)

    if number == 1:
        return intrinsic(lambda typing, x: (vector(x), make))
    if number == 2:
        return intrinsic(lambda typing, x, y: (vector(x, y), make))
    return intrinsic(lambda typing, x, y, z: (vector(x, y, z), make))


def _larger(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


def _power_of_two(builder: Any, x: Any) -> Any:
    exponent = builder.add(builder.fptosi(x, _INTS), ir.Constant(_INTS, [127] * LANES))
    bits = builder.shl(exponent, ir.Constant(_INTS, [23] * LANES))
    return builder.bitcast(bits, _FLOATS)


def _hadamard(builder: Any, x: Any) -> Any:
    undefined, width = ir.Constant(_FLOATS, ir.Undefined), 1
    while width < LANES:
        partner = ir.Constant(_INTS, [i ^ width for i in range(LANES)])
        sign = ir.Constant(_FLOATS, [-1.0 if i & width else 1.0 for i in range(LANES)])
        x = builder.fadd(builder.fmul(x, sign), builder.shuffle_vector(x, undefined, partner))
        width *= 2
    return x


add = _of_vectors(2, lambda builder, x, y: builder.fadd(x, y))
sub = _of_vectors(2, lambda builder, x, y: builder.fsub(x, y))
mul = _of_vectors(2, lambda builder, x, y: builder.fmul(x, y))
div = _of_vectors(2, lambda builder, x, y: builder.fdiv(x, y))
larger = _of_vectors(2, _larger)
fma = _of_vectors(3, lambda builder, x, y, z: _by_name(builder, "fma", x, y, z))
rounded = _of_vectors(1, lambda builder, x: _by_name(builder, "rint", x))
power_of_two = _of_vectors(1, _power_of_two)
"""2 to a whole number from -126 to 127, in every lane."""
hadamard = _of_vectors(1, _hadamard)
"""The 16 lanes times Sylvester's matrix of signs: lane i is Σ_j (−1)^(bits that i and j share) x_j."""


def _across(join: Callable[..., Any]) -> Any:
    """All lanes joined into one float, halves first."""

    def make(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, width = args[0], LANES
        while width > 1:
            width //= 2
            half = ir.VectorType(_INT, width)
            undefined = ir.Constant(x.type, ir.Undefined)
            low, high = (
                builder.shuffle_vector(
                    x, undefined, ir.Constant(half, list(range(start, start + width)))
                )
                for start in (0, width)
            )
            x = join(builder, low, high)
        return builder.extract_element(x, ir.Constant(_INT, 0))

    return intrinsic(lambda typing, x: (types.float32(x), make))


total = _across(lambda builder, x, y: builder.fadd(x, y))
largest = _across(_larger)


def compiled(function: F) -> F:
    """The function as a kernel: compiled when first called, kept on disk, without Python's lock."""
    return cast(F, njit(cache=True, nogil=True, error_model="numpy")(function))

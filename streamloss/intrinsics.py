"""Intrinsics for what Numba cannot express: single instructions, attributes of functions, and views that cost nothing.

Functions under `@intrinsic` are called by kernels; they write LLVM's representation themselves. The others, which take
a builder, are called by intrinsics, here and in `cpu.operands`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from llvmlite.binding import llvm_version_info
from numba.core import types
from numba.core.cgutils import alloca_once
from numba.extending import intrinsic

VECTOR = 8  # elements: a 512-bit vector of float64
CACHE_LINE = 64  # bytes
WORD = 64  # bytes that are looked at together: as many as an integer has bits
SEES_VECTORS = llvm_version_info >= (17,)  # whether LLVM notices that VECTOR elements share an entry, and reads it once

# Numba compiles a helper once more for every literal that it is called with: numbers go in as typed variables.
I64 = cast(Callable[[int], int], np.int64)
# The sign of a signed index is tested, which costs more than the addition at that index.
U64 = cast(Callable[[int], int], np.uint64)


@intrinsic
def wide_vectors(typing: Any) -> Any:
    """Let the loops of the function that calls this use 512-bit vectors where the CPU has them.

    LLVM stops at 256 bits on many CPUs that do, which costs a third of the speed here.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # The add() of this set refuses attributes that llvmlite does not know.
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def not_inlined(typing: Any) -> Any:
    """Keep the function that calls this out of its callers: LLVM would copy it to each and optimise it again there."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def address(typing: Any, array: Any) -> Any:
    """Return the address of the first element of an array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ptrtoint(context.make_array(array)(context, builder, args[0]).data, ir.IntType(64))

    return types.int64(array), generate


def prefetch(builder: Any, pointer: Any) -> None:
    """Write code that asks for the cache line at an address; one that does not exist is no error."""
    number = ir.IntType(32)
    pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    kinds = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
    function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kinds)
    to_read, keep_close, data = 0, 3, 1
    builder.call(function, [pointer, number(to_read), number(keep_close), number(data)])


def on_stack(context: Any, builder: Any, array: Any, count: int) -> Any:
    """Write code that makes an array of the type `array` in the frame of the function that is being compiled."""
    pointer = alloca_once(builder, context.get_data_type(array.dtype), count)
    pointer.align = CACHE_LINE
    return _array(context, builder, array, pointer, context.get_constant(types.intp, count))


def view(context: Any, builder: Any, array: Any, whole: Any, start: Any, size: Any) -> Any:
    """Write code for the `size` entries from `start` on of a contiguous array of the type `array`."""
    pointer = builder.gep(context.make_array(array)(context, builder, whole).data, [start], inbounds=True)
    return _array(context, builder, array, pointer, size)


def _array(context: Any, builder: Any, array: Any, pointer: Any, size: Any) -> Any:
    from numba.np.arrayobj import populate_array  # loads much of Numba

    made = context.make_array(array)(context, builder)
    itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(array.dtype)))
    populate_array(made, data=pointer, shape=[size], strides=[itemsize], itemsize=itemsize, meminfo=None)
    return made._getvalue()


def known(question: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a function for compiled code that answers a question about the type of its argument."""

    @intrinsic
    def ask(typing: Any, operand: Any) -> Any:
        answer = question(operand)
        return types.boolean(operand), lambda context, *_: context.get_constant(types.boolean, answer)

    return cast(Callable[[Any], bool], ask)


@intrinsic
def store_vector(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Store a value in the VECTOR elements of an array from an index on, by one instruction."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0]
        data = context.make_array(kind)(context, builder, args[0]).data
        single = context.data_model_manager[kind.dtype].as_data(builder, args[2])
        vector = ir.VectorType(single.type, VECTOR)
        filled = ir.Constant(vector, ir.Undefined)
        for i in range(VECTOR):
            filled = builder.insert_element(filled, single, ir.Constant(ir.IntType(32), i))
        place = builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer())
        builder.store(filled, place, align=context.get_abi_sizeof(single.type))
        return context.get_dummy_value()

    return types.void(array, types.uint64, array.dtype), generate


@intrinsic
def true_of_word(typing: Any, array: Any, index: Any) -> Any:
    """Count how many of the WORD bools of an array from an index on are True."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bools = _word(context, builder, array, *args)
        are_true = builder.icmp_unsigned("!=", bools, ir.Constant(bools.type, None))
        return builder.ctpop(builder.bitcast(are_true, ir.IntType(WORD)))

    return types.int64(array, types.int64), generate


@intrinsic
def equal_in_word(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Return a word whose bits say which of the WORD bytes of an array from an index on are a value."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        loaded = _word(context, builder, array, *args[:2])
        single = builder.insert_element(ir.Constant(loaded.type, ir.Undefined), args[2], ir.IntType(32)(0))
        places = ir.Constant(ir.VectorType(ir.IntType(32), WORD), None)  # the first element everywhere
        wanted = builder.shuffle_vector(single, single, places)
        return builder.bitcast(builder.icmp_unsigned("==", loaded, wanted), ir.IntType(WORD))

    return types.uint64(array, types.int64, types.uint8), generate


@intrinsic
def ones(typing: Any, word: Any) -> Any:
    """Return how many bits of a word are 1."""
    return types.int64(types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


def _word(context: Any, builder: Any, array: Any, whole: Any, index: Any) -> Any:
    """Write code that loads WORD bytes of an array as a vector."""
    return _load(ir.VectorType(ir.IntType(8), WORD), context, builder, array, whole, index)


def _load(kind: Any, context: Any, builder: Any, array: Any, whole: Any, index: Any) -> Any:
    """Write code that loads a value of LLVM's type `kind` from an array of bytes, wherever it lies."""
    place = builder.gep(context.make_array(array)(context, builder, whole).data, [index])
    return builder.load(builder.bitcast(place, kind.as_pointer()), align=1)


@intrinsic
def eight_bytes(typing: Any, array: Any, index: Any) -> Any:
    """Return eight bytes of an array, from an index on, as one integer of which the first byte is the lowest."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _load(ir.IntType(64), context, builder, array, *args)

    return types.uint64(array, types.int64), generate


@intrinsic
def set_eight_bytes(typing: Any, array: Any, index: Any, word: Any) -> Any:
    """Set eight bytes of an array, from an index on, to those of an integer, the lowest first."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = builder.gep(context.make_array(array)(context, builder, args[0]).data, [args[1]])
        builder.store(args[2], builder.bitcast(place, args[2].type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), generate


def _select(comparison: str) -> Any:
    """Write code that selects the first of two integers if it compares so with the second, else the second."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed(comparison, *args), *args)

    return generate


# Numba compiles Python's min and max into three functions for each kind of argument.
@intrinsic
def smaller(typing: Any, a: Any, b: Any) -> Any:
    """The smaller of two int64."""
    return types.int64(types.int64, types.int64), _select("<")


@intrinsic
def larger(typing: Any, a: Any, b: Any) -> Any:
    """The larger of two int64."""
    return types.int64(types.int64, types.int64), _select(">")


def _adding(count: int) -> Callable[..., None]:
    """Return a function for compiled code that adds that many elements as one vector."""

    @intrinsic
    def add(typing: Any, array: Any, index: Any, more: Any, place: Any) -> Any:
        """Add the elements of `more` from `place` on to those of `array` from `index` on."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            vector = ir.VectorType(context.get_data_type(array.dtype), count)
            size = context.get_abi_sizeof(vector.element)
            pointers = []
            for values, first in (args[:2], args[2:]):
                data = context.make_array(array)(context, builder, values).data
                pointers.append(builder.bitcast(builder.gep(data, [first]), vector.as_pointer()))
            before, addend = (builder.load(pointer, align=size) for pointer in pointers)
            builder.store(builder.add(before, addend), pointers[0], align=size)
            return context.get_dummy_value()

        return types.void(array, types.uint64, array, types.uint64), generate

    return cast(Callable[..., None], add)


add_two, add_four = _adding(2), _adding(4)


@intrinsic
def bits(typing: Any, value: Any) -> Any:
    """The 64 bits of a float64 as an int64."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic
def from_bits(typing: Any, value: Any) -> Any:
    """The float64 that has these 64 bits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), generate

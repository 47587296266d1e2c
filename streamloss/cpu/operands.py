"""How compiled code reads the weights and the mask of a chunk, whatever form they come in.

They are None, one number, an array with an entry for every element, or a run (entries, repeat, period), in which
element i has entry (i // repeat) % period. An array or a run alone in a tuple has entries for VECTOR elements each. The
type of an operand decides, when a kernel is compiled, how a block of it is read; a run is written out block by block,
in cache, and never as a whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_name
from numba import config, float64
from numba.core import types
from numba.extending import intrinsic

from .. import _jit, intrinsics
from ..intrinsics import CACHE_LINE, VECTOR, WORD, smaller

BLOCK = 2048  # elements; 2**11 patterns of 2**51 units add up to less than 2**63, see blocks.py

# Intel's own read-ahead keeps up with a loop that only reads. With it alone, these loops wait for a third of the time.
# Both numbers are the best of many that were measured: a line more or less costs 5 to 10 %. AMD's keeps up with these
# loops, too, and is a quarter slower if it is told what to read: it reads blocks as wholes.
PORTION = 1024  # bytes of labels that are read before the next lines of all operands are asked for
AHEAD = 2432  # bytes from the current element to the end of those lines
READ_AHEAD_WELL = "znver"  # how LLVM's names of such processors begin
_VECTOR = ir.IntType(64)(VECTOR)


def _is_in_vectors(operand: Any) -> bool:
    return isinstance(operand, types.BaseTuple) and len(operand) == 1


@intrinsic(prefer_literal=True)
def room(typing: Any, count: Any, dtype: Any) -> Any:
    """Return an array of a fixed number of entries, not initialised.

    It lies in the frame of the function that asks for it, and costs nothing; np.empty would take a tenth of the time
    that a kernel takes to compile.
    """
    array = types.Array(dtype.instance_type, 1, "C")
    return array(count, dtype), lambda context, builder, *_: intrinsics.on_stack(
        context, builder, array, count.literal_value
    )


@intrinsic
def scratch(typing: Any, operand: Any) -> Any:
    """Return an array for a block of the operand if it has to be written out, otherwise None."""
    run = operand[0] if _is_in_vectors(operand) else operand
    if not isinstance(run, types.BaseTuple):
        return types.none(operand), lambda context, *_: context.get_dummy_value()
    array = types.Array(run[0].dtype, 1, "C")
    return array(operand), lambda context, builder, *_: intrinsics.on_stack(context, builder, array, BLOCK + VECTOR)


# By an operand's type: do all elements share one entry, is it None, and are entries for VECTOR elements each?
is_shared = intrinsics.known(lambda operand: isinstance(operand, (types.Float, types.NoneType)))
is_one = intrinsics.known(lambda operand: isinstance(operand, types.NoneType))
is_in_vectors = intrinsics.known(_is_in_vectors)


def weigh(weights: Any, i: int, loss: float) -> Any:
    """Return the term of element i of a block: its weight times its loss."""


@_jit.by_type(weigh, **_jit.NO_COUNTS)
def _weigh(weights: Any, i: Any, loss: Any) -> Any:
    if isinstance(weights, types.NoneType):
        return lambda weights, i, loss: loss
    return lambda weights, i, loss: float64(item(weights, i)) * loss


@intrinsic
def part(typing: Any, array: Any, start: Any, stop: Any) -> Any:
    """Return the entries of an array from start to stop, which must lie within it: a slice without its checks."""
    return _view(array)(array, types.int64, types.int64), _part


def _view(array: Any) -> Any:
    return types.Array(array.dtype, 1, "C")


def _part(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Write the code of `part`."""
    whole, start, stop = args
    return intrinsics.view(context, builder, signature.args[0], whole, start, builder.sub(stop, start))


@intrinsic
def block(typing: Any, operand: Any, start: Any, stop: Any, room: Any) -> Any:
    """Return the operand for the elements from start to stop; a run is written out into `room`."""
    if isinstance(operand, types.Array):
        return _view(operand)(operand, types.int64, types.int64, room), lambda c, b, s, args: _part(c, b, s, args[:3])
    if not isinstance(operand, types.BaseTuple):
        return operand(operand, types.int64, types.int64, room), lambda c, b, s, args: args[0]
    if _is_in_vectors(operand):
        return _block_in_vectors(typing, operand, room)
    written = _view(room)
    function = typing.resolve_value_type(spread)
    inner = function.get_call_type(typing, (operand, types.int64, written), {})

    def write_out(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        run, start, stop, whole = args
        first = context.get_constant(types.int64, 0)
        target = intrinsics.view(context, builder, room, whole, first, builder.sub(stop, start))
        context.get_function(function, inner)(builder, (run, start, target))
        return target

    return written(operand, types.int64, types.int64, room), write_out


def _block_in_vectors(typing: Any, operand: Any, room: Any) -> Any:
    """Return `block` for entries that are for VECTOR elements each; start and stop are multiples of VECTOR."""
    function = typing.resolve_value_type(block)
    inner = function.get_call_type(typing, (operand[0], types.int64, types.int64, room), {})
    made = types.Tuple([inner.return_type])

    def narrow(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        places = [builder.sdiv(place, _VECTOR) for place in args[1:3]]
        call = context.get_function(function, inner)
        entries = call(builder, (builder.extract_value(args[0], 0), *places, args[3]))
        return context.make_tuple(builder, made, [entries])

    return made(operand, types.int64, types.int64, room), narrow


@intrinsic
def item(typing: Any, operand: Any, i: Any) -> Any:
    """Return entry i of a block; for None it is True, which as a weight is 1."""
    if isinstance(operand, types.NoneType):
        return types.boolean(operand, i), lambda context, *_: context.get_constant(types.boolean, True)
    array = operand[0] if _is_in_vectors(operand) else operand
    if not isinstance(array, types.Array):
        return operand(operand, i), lambda context, builder, signature, args: args[0]

    def load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        entries, place = args
        if array is not operand:
            entries, place = builder.extract_value(entries, 0), builder.udiv(place, _VECTOR)
        data = context.make_array(array)(context, builder, entries).data
        return context.unpack_value(builder, array.dtype, builder.gep(data, [place], inbounds=True))

    return array.dtype(operand, types.int64), load


def kept(mask: Any, size: int) -> Any:
    """Return how many elements of a block the mask keeps."""


@_jit.by_type(kept, **_jit.NO_COUNTS)
def _kept(mask: Any, size: Any) -> Any:
    if isinstance(mask, types.NoneType):
        return lambda mask, size: size
    if isinstance(mask, types.BaseTuple):
        return lambda mask, size: VECTOR * count_true(mask[0])
    return lambda mask, size: count_true(mask)


@_jit.routine
def count_true(bools: Any) -> int:
    """Return how many of an array are True."""
    intrinsics.not_inlined()
    found = 0
    whole = bools.size // WORD * WORD
    for i in range(0, whole, WORD):
        found += intrinsics.true_of_word(bools, i)
    for i in range(whole, bools.size):
        found += bools[i]
    return found


@_jit.scalar
def past_line(values: Any, i: int, whole_vectors: bool) -> int:
    """Return how many elements of the cache line of element i come before it, or a multiple of VECTOR not above that.

    Blocks begin with a cache line: loads across two lines cost float32 a tenth of its speed.
    """
    past = (intrinsics.address(values) // values.itemsize + i) % (CACHE_LINE // values.itemsize)
    return past // VECTOR * VECTOR if whole_vectors else past


@intrinsic
def portion(typing: Any, labels: Any) -> Any:
    """Return how many elements of a block are read before the next lines are asked for."""
    return types.int64(labels), lambda context, *_: context.get_constant(types.int64, _portion(labels))


def _portion(labels: Any) -> int:
    return BLOCK if _reads_ahead_well() else PORTION * 8 // int(labels.dtype.bitwidth)


def _reads_ahead_well() -> bool:
    processor = config.CPU_NAME or get_host_cpu_name()  # as Numba has it
    return processor.startswith(READ_AHEAD_WELL)


@intrinsic
def read_ahead(typing: Any, labels: Any, operand: Any, start: Any) -> Any:
    """Prefetch what will be read of an operand soon after element `start` of a block; past its end is harmless.

    Nothing is asked of a processor that does so by itself.
    """

    def ask(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if isinstance(operand, types.Array) and not _reads_ahead_well():
            data = context.make_array(operand)(context, builder, args[1]).data
            begin = builder.bitcast(builder.gep(data, [args[2]]), ir.IntType(8).as_pointer())
            size = _portion(labels) * operand.dtype.bitwidth // 8
            for offset in range(AHEAD - size, AHEAD, CACHE_LINE):
                intrinsics.prefetch(builder, builder.gep(begin, [ir.IntType(64)(offset)]))
        return context.get_dummy_value()

    return types.none(labels, operand, types.int64), ask


@_jit.routine
def spread(run: Any, start: int, room: Any) -> None:
    """Write out a block of a run, in whole vectors: the next entry overwrites what goes beyond an entry's last element.

    There is space for one more vector after `room`.
    """
    intrinsics.not_inlined()
    entries, repeat, period = run
    size = room.size
    entry, done = divmod(start % (repeat * period), repeat)
    for k in range(0, smaller(repeat - done, size), VECTOR):
        intrinsics.store_vector(room, k, entries[entry])
    i = repeat - done
    entry += 1
    while i < size:
        entry = entry if entry < period else 0
        stop = smaller(period, entry + (size - i + repeat - 1) // repeat)
        if repeat <= VECTOR:
            for e in range(np.uint64(entry), np.uint64(stop)):  # the sign of a signed index would be tested
                intrinsics.store_vector(room, i, entries[e])
                i += repeat
        else:
            for e in range(np.uint64(entry), np.uint64(stop)):
                for k in range(i, smaller(i + repeat, size), VECTOR):
                    intrinsics.store_vector(room, k, entries[e])
                i += repeat
        entry = stop

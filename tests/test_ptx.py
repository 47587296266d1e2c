"""What NVVM makes of the kernels, for two generations of devices: no GPU is needed to look at it.

A fused multiply-add rounds once where the CPU rounds twice, and an operation without an explicit rounding may still be
fused by the assembler; either changes bits, which the simulator cannot see.
"""

import re
from functools import cache
from types import SimpleNamespace

import pytest

from streamloss.exact import STDERR_WORDS
from streamloss.losses import LOSSES

compiling = pytest.importorskip("streamloss.cuda.compiling", reason="needs numba-cuda", exc_type=ImportError)

from streamloss.cuda import elements, kernels, slots  # noqa: E402
from streamloss.cuda.elements import Form  # noqa: E402

pytestmark = pytest.mark.ptx
CAPABILITIES = [(8, 0), (9, 0)]
FORMS = {
    "float32": Form("f", "f"),
    "float64": Form("d", "d"),
    "float32, weights": Form("f", "f", "f"),
    "float64, weights": Form("d", "d", "d"),
    "float64, one weight": Form("d", "d", "1"),
    "bfloat16": Form("E", "E"),
    "float16, uint64 weights": Form("e", "e", "L"),
    "all at once": Form("d", "f", "f", "?", "f", axes=3, omit=True, words=STDERR_WORDS),
    "squares": Form("f", "f", words=STDERR_WORDS, squares=True),
    "squares, weights": Form("d", "d", "d", words=STDERR_WORDS, squares=True),
    "groups": Form("f", "f", grouped=True),
    "groups, all at once": Form("d", "f", "f", "?", "f", axes=3, omit=True, words=STDERR_WORDS, grouped=True),
    "groups, squares": Form("d", "d", words=STDERR_WORDS, squares=True, grouped=True),
}
# Every kernel of squared errors, and of every other loss the simplest: formulas and forms do not interact.
KERNELS = [("squared_error", name) for name in FORMS] + [
    (loss, "float64") for loss in LOSSES if loss != "squared_error"
]
ARITHMETIC = re.compile(r"^\s*(?:@!?%p\d+ )?((?:add|sub|mul|div|sqrt|fma|mad)\.[\w.]*f(?:32|64))\b", re.MULTILINE)


@pytest.fixture(scope="module", autouse=True)
def device():
    """Numba asks the current device for its capability when it compiles what a kernel calls; it makes no difference."""
    import numba.cuda.dispatcher

    with pytest.MonkeyPatch.context() as patch:
        pretended = SimpleNamespace(compute_capability=CAPABILITIES[0])
        patch.setattr(numba.cuda.dispatcher, "get_current_device", lambda: pretended)
        yield


@cache
def library_of(loss, form):
    """The kernel of a loss in Numba's hands, before NVVM compiles it for a capability."""
    loss = LOSSES[loss]
    source = (kernels.grouped if form.grouped else kernels.kernel)(form, elements.compiled(loss))
    return compiling.library(source, compiling.signature(form, len(loss.values)), CAPABILITIES[0], form.threads)


def ptx_of(loss, form, capability):
    return library_of(loss, form).get_asm_str(cc=capability)


ROUNDED_ONCE = re.compile(r"(add|sub|mul|div|sqrt)\.rn\.f(32|64)")


def arithmetic(text):
    """The kinds of floating-point operations in it."""
    return set(ARITHMETIC.findall(text))


def rounded_once_each(text):
    """Whether every operation is rounded to nearest even by itself, subnormal numbers included."""
    return all(map(ROUNDED_ONCE.fullmatch, arithmetic(text)))


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize(("loss", "name"), KERNELS)
def test_no_operation_is_fused_and_nothing_is_spilled(loss, name, capability):
    text = ptx_of(loss, FORMS[name], capability)
    found = arithmetic(text)
    assert "sub.rn.f64" in found  # the loss
    assert "add.rn.f64" in found or FORMS[name].grouped  # the cuts, without which elements go to their groups
    assert rounded_once_each(text), found
    assert ".ftz" not in text
    assert not re.search(r"\b(ld|st)\.local|__local_depot", text)
    assert f".target sm_{capability[0]}{capability[1]}" in text


@pytest.mark.parametrize("capability", CAPABILITIES, ids=str)
@pytest.mark.parametrize("name", ["carry_slots", "move_words"])
def test_the_kernels_of_words_have_no_floats(name, capability):
    signature = {"carry_slots": compiling.CARRY, "move_words": compiling.MOVE}[name]
    text = compiling.library(getattr(slots, name), signature, capability, elements.THREADS).get_asm_str(cc=capability)
    assert not arithmetic(text)
    assert not re.search(r"\b(ld|st)\.local|__local_depot", text)
    assert re.search(r"(atom|red)\.(relaxed\.sys\.)?(global\.)?(relaxed\.\w+\.)?add\.u64", text)


PARAMETERS = re.compile(r"\.param \.(\w+)")


@pytest.mark.parametrize("name", FORMS)
def test_the_arguments_are_those_that_the_launch_packs(name):
    loss, form = "squared_error", FORMS[name]
    text = ptx_of(loss, form, CAPABILITIES[0])
    begin = text.index(".visible .entry")
    found = PARAMETERS.findall(text[begin : text.index("{", begin)])
    layout = compiling.layout(compiling.signature(form, len(LOSSES[loss].values)))
    assert found == [{"q": "u64", "d": "f64"}[word] for word in layout]


def test_contraction_would_be_noticed(monkeypatch):
    monkeypatch.setitem(compiling.NVVM_OPTIONS, "fma", 1)
    library_of.cache_clear()
    kinds = {
        (name, capability): arithmetic(ptx_of("squared_error", FORMS[name], capability))
        for name in ("float64", "squares")
        for capability in CAPABILITIES
    }
    library_of.cache_clear()
    for (name, _), found in kinds.items():
        assert ("fma.rn.f64" in found) == (name == "squares")  # of the rest the assembler may make some
        assert not all(map(ROUNDED_ONCE.fullmatch, found))


@pytest.mark.parametrize("name", FORMS)
def test_the_machine_code_keeps_all_in_registers(name):
    """The assembler's own figures, for compute capability 9.0."""
    core = pytest.importorskip("cuda.core")
    text = ptx_of("squared_error", FORMS[name], (9, 0))
    options = core.LinkerOptions(arch="sm_90", ptxas_options=["-v"])
    linker = core.Linker(core.ObjectCode.from_ptx(text.encode()), options=options)
    linker.link("cubin")
    log = linker.get_info_log()
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
    registers, threads = int(re.search(r"Used (\d+) registers", log)[1]), FORMS[name].threads
    assert registers * threads <= 65536 // (1 if FORMS[name].squares else 2)  # two blocks at once, at least

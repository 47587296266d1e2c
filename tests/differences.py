"""Where the compat modules differ from their references on purpose: the one table, shown in docs/compat.md.

Each row is a test of tests/test_compat.py; tests/test_compat_conformance.py lets no other difference pass.
"""

from typing import NamedTuple


class Row(NamedTuple):
    subject: str
    reference: str
    here: str
    reason: str


DIFFERENCES = {
    "arithmetic": Row(
        "arithmetic",
        "TF1 casts everything to float32 first; Keras and torch compute in the dtype of the arrays",
        "float64 with exact sums; only the result is rounded to that dtype",
        "the reference's rounding errors are not worth keeping: compare with a relative tolerance of 1e-6",
    ),
    "integers": Row(
        "integers",
        "TF1 truncates the result back to integers, Keras 2.15 divides integers, torch refuses some combinations",
        "losses of integers are computed in floating point; the result is float32 unless some array is of floats",
        "the mean of [1, 2] must be 1.5, not 1",
    ),
    "broadcasting": Row(
        "shapes that differ",
        "torch warns and broadcasts; Keras 2.15 broadcasts NumPy (3,) against (3, 1) to (3, 3), squeezes tensors to"
        " (3,), Keras 3 makes it (3, 1); weights may enlarge the row losses",
        "ValueError",
        "shapes must not broadcast silently: where the references give three different answers, the program has a bug",
    ),
    "weight sums": Row(
        "Keras 3's mean_with_sample_weight",
        "sums the weights before they are broadcast: a scalar weight gives the sum of the row losses, and on arrays of"
        " rank 1 the weight 2 doubles the mean",
        "weights are counted after broadcasting",
        "a weight that all rows share must not change a mean",
    ),
    "samples": Row(
        "weights of fewer axes than the row losses",
        "Keras 3 (and 2.15 where two axes are missing) aligns [batch] weights with the last axis, if the sizes agree,"
        " and refuses them otherwise",
        "[batch] weights weigh samples, for every rank",
        "that is what both document, and a result must not depend on sizes that happen to agree",
    ),
    "unreduced shape": Row(
        "the shape of weighted row losses",
        "Keras 3 returns row losses of shape (n,) with weights (n, 1) as (n, 1), of shape (1,) with a scalar as ()",
        "the documented shape, that of the row losses",
        "the shape of a result must not depend on how its weights are written; Keras 2.15 agrees",
    ),
    "nothing": Row(
        "an empty batch, reduced",
        "Keras 3 returns the empty array",
        "0.0",
        "a reduction must give a number; Keras 2.15 and the formula (a zero denominator gives 0.0) agree",
    ),
    "keras dtype": Row(
        "the dtype of Keras results",
        "Keras 3 converts everything to float32 unless told otherwise, and Huber of 2.15 does so in any case",
        'by default the dtype of y_pred, as in Keras 2.15; dtype="float32" gives that of Keras 3',
        "one class serves both versions, and float64 arrays keep their digits",
    ),
    "reduction names": Row(
        "names of Keras' reductions",
        'Keras 2.15 refuses "mean", "mean_with_sample_weight" and None, Keras 3 refuses "auto"',
        "all of them are accepted",
        "one class serves both versions",
    ),
    "log_cosh": Row(
        "LogCosh",
        "x + softplus(-2x) - log 2, with log 2 in float32: -1.9e-9 at 0 in float64, NaN at minus infinity",
        "log(cosh(x)) without cancellation: 0 at 0, infinity at both ends",
        "the loss of a perfect prediction must not be negative",
    ),
    "cross entropy": Row(
        "BinaryCrossentropy",
        "Keras 2.15 clips probabilities by 1e-7 and adds 1e-7 again; float32 clips at 1 - 1.2e-7",
        "the formula of Keras 3, clipped once, at 1 - 1e-7 in float64",
        "the versions differ (by about 1e-7 / p), and float32 has no number 1 - 1e-7",
    ),
    "cross entropy axis": Row(
        "BinaryCrossentropy(axis=...)",
        "Keras averages any axis",
        "ValueError unless -1",
        "the axis along which chunks arrive must not be the one that is averaged",
    ),
    "delta": Row(
        "huber with delta <= 0",
        "TensorFlow and Keras return zero or a negative number; torch refuses",
        "ValueError",
        "the loss of a wrong prediction must not be zero or negative",
    ),
    "bfloat16": Row(
        "bfloat16",
        "the result is bfloat16",
        "float32",
        "NumPy has no bfloat16",
    ),
    "masked arrays": Row(
        "numpy.ma arrays with a mask",
        "the values under the mask count",
        "TypeError",
        "the reference APIs have no masks: use weights of 0 and 1",
    ),
    "complex": Row(
        "complex numbers",
        "TF1 drops the imaginary part, torch.nn.L1Loss takes the modulus",
        "TypeError",
        "a loss is a function of real numbers",
    ),
}


def as_markdown(row: Row) -> str:
    """The row as docs/compat.md shows it."""
    return "| " + " | ".join(row) + " |"

"""How much the outputs suffer from each quantizer: measured exactly, or from derivatives."""

from collections.abc import Callable, Mapping

from jptq.results.sensitivity import SensitivityTable
from jptq.sensitivity import exact, gradient, hessian, naive, probe
from jptq.sensitivity.compare import Agreement, compare
from jptq.sensitivity.losses import Loss, load_loss
from jptq.sensitivity.rescoring import rescore
from jptq.sensitivity.rows import CURRENT, Rows, quantizer_rows, rows_of

METHODS: Mapping[str, Callable[..., SensitivityTable]] = {
    "metric": exact.rank,
    "probe": probe.rank,
    "gradient": gradient.rank,
    "hessian": hessian.rank,
}
"""``--method``: all take (runner, thresholds, base, rows, samples, metrics=...)."""

METRICS_OF = {
    "metric": ("cosine-similarity", "mre", "mse", "sqnr", "chebyshev"),
    "probe": probe.METRICS,
    "gradient": gradient.METRICS,
    "hessian": hessian.METRICS,
}
"""What each method can score; the first is its default."""

__all__ = [
    "CURRENT",
    "METHODS",
    "METRICS_OF",
    "Agreement",
    "Loss",
    "Rows",
    "compare",
    "load_loss",
    "naive",
    "quantizer_rows",
    "rescore",
    "rows_of",
]

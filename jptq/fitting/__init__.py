"""Weights and biases of a float network that lose less when weights become INT8.

A weight is rounded so that the output of its layer stays, not each of its elements
(`jptq.fitting.rounding`), and a bias takes up what is left of the mean error
(`jptq.fitting.bias`). Both follow from sums over the layer's inputs (`jptq.fitting.capture`). Every
change has to prove itself on samples that were held out, on its layer (`jptq.fitting.guards`) and
on the network (`jptq.fitting.network`). Fitted weights lie on the grid that a plain calibration
finds again (`jptq.fitting.grid`): the accelerator's tools give the same integers, and nothing runs
slower.
"""

from jptq.fitting.fit import Fitted, fit
from jptq.results.fit import MODES

__all__ = ["MODES", "Fitted", "fit"]

"""How far two orders agree."""

from __future__ import annotations

import numpy as np


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Return Spearman's rank correlation of two vectors of one length.

    Ties share their mean rank. NaN where one of the two is constant.
    """
    from scipy import stats  # a third of a second, which most commands need not wait for

    return float(stats.spearmanr(first, second).statistic)

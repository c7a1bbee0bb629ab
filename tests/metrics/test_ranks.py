from __future__ import annotations

import numpy as np
import pytest

from jptq.metrics.ranks import spearman


def test_a_rank_correlation_sees_only_the_order() -> None:
    values = np.array([3.0, 1.0, 2.0, 5.0])
    assert spearman(values, np.exp(values)) == pytest.approx(1)
    assert spearman(values, -(values**3)) == pytest.approx(-1)


def test_ties_share_their_mean_rank() -> None:
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: by the definition, Pearson's correlation of both.
    ranks = np.array([1, 2.5, 2.5, 4]), np.array([1.0, 2, 3, 4])
    want = np.corrcoef(*ranks)[0, 1]
    assert spearman(np.array([0.0, 7, 7, 9]), np.arange(4.0)) == pytest.approx(want)

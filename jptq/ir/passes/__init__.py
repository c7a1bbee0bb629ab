"""The passes of the float graph, and their order.

A pass is ``run(model) -> changed`` on the library's graph, in place. The passes of a stage run in
turn until none changes anything; then comes the next stage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import onnx_ir as ir

from jptq.ir.passes import affine, branches, constants, dead_code, gemm, identities, shapes, units

Pass = Callable[[ir.Model], bool]

PASSES: Final[tuple[tuple[Pass, ...], ...]] = (
    # Shapes and constants first: every other pass asks for them. What they fix decides
    # branches and shows which nodes do nothing.
    (shapes.run, constants.run, branches.run, identities.run, dead_code.run),
    # Units before folding: in Conv -> clip(x + 3, 0, 6) / 6 the shift belongs to the HardSigmoid,
    # not to the bias. Gemm takes its plain form before something is folded into it. The folds
    # uncover new identities and constants, so the first stage is repeated.
    (units.run, gemm.run, affine.run, shapes.run, constants.run, identities.run, dead_code.run),
    # A normalisation becomes a convolution only when it is certain that none will take it.
    (affine.replace_lone_batch_norms, dead_code.run),
)

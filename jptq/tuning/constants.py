"""Constants that a calibrated network computes with in place of the float network's own.

Weights and biases that are fitted to the samples (`jptq.fitting`), and biases that the
configuration asks to be corrected (`jptq.tuning.correction`), in this order.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping

import numpy as np

from jptq import __version__, files, fitting
from jptq.data import Samples
from jptq.engine import Runner, memory
from jptq.fitting import MODES, Fitted
from jptq.ir.model import Model
from jptq.quant.assign import Assignment, table
from jptq.quant.calibrated import thresholds_of
from jptq.quant.config import Config
from jptq.quant.originals import with_originals, with_owners
from jptq.quant.plan import WEIGHT
from jptq.registry import lookup
from jptq.results import Fit
from jptq.targets import Target
from jptq.tuning.correction import corrected
from jptq.tuning.journal import Journal
from jptq.tuning.scoring import FirstSample

_REPORT = "report"
_OWNERS = "owners"
_CONSTANT = "c:"


class Constants:
    """Finds them, once for all thresholds that a network may be given: a fit needs none of them.

    Args:
      samples: Calibration samples.
      target: Accelerator.
      mode: What is fitted (`jptq.fitting.MODES`).
      journal: Keeps what is found.
      progress: ``progress(step, done, total)``.

    Attributes:
      report: Of the fit; None as long as there is none.

    Raises:
      UnknownNameError: There is no such mode.
    """

    def __init__(
        self,
        samples: Samples,
        target: Target,
        mode: str,
        journal: Journal,
        progress: Callable[[str, int, int], None],
    ) -> None:
        lookup(dict.fromkeys(MODES), mode, "way to fit", where="--fit")
        self.samples = samples
        self.target = target
        self.mode = mode
        self.journal = journal
        self.progress = progress
        self._fitted: Fitted | None = None

    @property
    def fits(self) -> bool:
        """Whether anything may be fitted."""
        return self.mode != "off"

    @property
    def report(self) -> Fit | None:
        """What the fit did."""
        return None if self._fitted is None else self._fitted.report

    def of(
        self,
        runner: Runner,
        types: Assignment,
        config: Config,
        identity: str,
        *,
        network: str | None,
    ) -> dict[str, np.ndarray]:
        """Return the constants that change.

        Args:
          runner: Of the calibrated graph, with the float network's constants.
          types: What the configuration asks for.
          config: May ask for corrected biases.
          identity: Digest of everything that corrected biases depend on.
          network: Digest of the float network and the samples, all that a fit depends on beside
            the weights' types; None for no fit.

        Returns:
          ``{initializer: float32}``.
        """
        changed = {} if network is None else dict(self._fit(runner, types, config, network))
        if config.bias_correction is None:
            return changed
        identity = identity if network is None else self.digest(identity)
        known = self.journal.load_arrays("biases", identity)
        if known is None:
            weights, own = self.written(runner.model, changed), runner.model.initializers
            running = runner.sharing(
                weights, plan=runner.plan, changed=changed, floats={n: own[n] for n in changed}
            )
            assert runner.plan is not None
            known = dict(
                corrected(
                    running,
                    table(runner.plan, thresholds_of(runner.model), types),
                    self.samples,
                    FirstSample(running, self.samples, self.target, config),
                    config.bias_correction,
                    progress=lambda done, total: self.progress("correct biases", done, total),
                ).biases
            )
            self.journal.save_arrays("biases", identity, arrays=known)
        return {**changed, **known}

    def digest(self, identity: str) -> str:
        """Return the digest of what depends on the constants too."""
        return files.digest(identity, "fit", self.mode) if self.fits else identity

    def _fit(
        self, runner: Runner, types: Assignment, config: Config, network: str
    ) -> Mapping[str, np.ndarray]:
        assert runner.plan is not None
        # The network's guard is the only one that meets thresholds of features: at INT16, where
        # those of one method are as good as those of another.
        weights = [one.name for one in runner.plan.calibrations if one.kind == WEIGHT]
        identity = files.digest(
            __version__,
            network,
            self.target.digest,
            repr(config.weight),
            str(runner.batching.memory),  # layers beyond it are left out
            json.dumps({name: types[name] for name in weights}, sort_keys=True),
        )
        if self._fitted is None:
            self._fitted = self._kept(identity)
        if self._fitted is None:
            found = fitting.fit(
                runner,
                self.samples,
                thresholds_of(runner.model),
                types,
                mode=self.mode,
                progress=lambda done, total: self.progress("fit weights", done, total),
            )
            memory.release()
            constants = {f"{_CONSTANT}{name}": value for name, value in found.constants.items()}
            notes = {_REPORT: found.report.to_json(), _OWNERS: dict(found.owners)}
            arrays = {**constants, **{k: np.asarray(json.dumps(v)) for k, v in notes.items()}}
            self.journal.save_arrays("fit", identity, self.mode, arrays=arrays)
            self._fitted = found
        return self._fitted.constants

    def _kept(self, identity: str) -> Fitted | None:
        """Return what an earlier run found."""
        known = self.journal.load_arrays("fit", identity, self.mode)
        if known is None:
            return None
        report, owners = (json.loads(str(known.pop(name))) for name in (_REPORT, _OWNERS))
        constants = {name.removeprefix(_CONSTANT): value for name, value in known.items()}
        return Fitted(constants=constants, owners=owners, report=Fit.from_json(report))

    def written(self, model: Model, constants: Mapping[str, np.ndarray]) -> Model:
        """Return a model with some constants changed, and notes of what they were.

        Args:
          model: A calibrated model with the float network's constants.
          constants: What `of` returned, or a part of it.
        """
        own = model.initializers
        changed = dataclasses.replace(model, initializers={**own, **constants})
        noted = with_originals(changed, {name: own[name] for name in constants})
        owners = {} if self._fitted is None else self._fitted.owners
        return with_owners(noted, {n: q for n, q in owners.items() if n in constants})

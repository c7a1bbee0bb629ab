"""Find the subgraph in front of a failing output that has to be INT16, by running few of them.

Where a ranking misleads, the vendor's chapter raises the output's head as a whole, by hand. Here
it is grown backwards from the output, one row of matrix products after the other, and then thinned:
what the goal does not need is given back, most waste first. Both only propose; each step is run.

Source: the vendor's tuning chapter; hmct-spec 4.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from jptq.ir.model import Model
from jptq.ir.paths import between
from jptq.numerics.qtypes import INT16
from jptq.quant.assign import Assignment
from jptq.quant.config import load_config
from jptq.quant.emit import quant_config
from jptq.quant.resolve import resolve
from jptq.results import Evaluation, LatencyTable
from jptq.results.problem import Head
from jptq.sensitivity import exact, rows_of
from jptq.tuning.advice import producer_of
from jptq.tuning.goal import Judge
from jptq.tuning.measure import Measurer
from jptq.tuning.prepare import Prepared, Progress, quiet
from jptq.tuning.ranking import at
from jptq.tuning.source import spread

LIMIT = 10
"""Most subgraphs that are run."""

THINNING = 4
"""Runs that growing leaves to thinning."""

NAME = "head"
"""What the subgraph is called in the configuration."""


Run = Callable[[str, Assignment], Evaluation]
"""Really runs a configuration, under a name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Region:
    """Nodes between some nodes and others, the ends included.

    Attributes:
      inputs: First nodes.
      outputs: Last nodes.
      nodes: All of them, in graph order.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]


def find_head(
    measurer: Measurer,
    judge: Judge,
    outputs: Sequence[str],
    *,
    base: Assignment | None = None,
    limit: int = LIMIT,
    samples: int = 8,
    run: Run | None = None,
    progress: Progress = quiet,
) -> Head | None:
    """Return the cheapest subgraph in front of outputs that was found to meet the goal.

    Args:
      measurer: Runs the calibrated network.
      judge: Knows the goal.
      outputs: Graph outputs that fail.
      base: Types outside of the subgraph; all-INT8 if None.
      limit: Most configurations to run.
      samples: For ranking inside the subgraph.
      run: Measures a configuration under a name; the measurer if None.
      progress: Called before every run.

    Returns:
      The subgraph; the best one if none meets the goal, None if nothing can be raised.
    """
    finder = _Finder(
        measurer.prepared,
        run or measurer,
        judge,
        base or measurer.prepared.all("int8"),
        limit,
        progress,
    )
    grown = finder.grow(tuple(regions(measurer.prepared, outputs)))
    if grown is not None and judge.meets(grown.evaluation):
        grown = finder.thin(grown, outputs, samples)
    return None if grown is None else finder.head(grown)


def regions(prepared: Prepared, outputs: Sequence[str]) -> Iterator[Region]:
    """Yield the subgraphs in front of outputs, each one inside the next.

    The first one ends before the last matrix products (the decoding of a detector, often in
    pixels), the second one takes them in, each further one the matrix products before these with
    what stands between.
    """
    model = prepared.calibrated
    found = stages(model, prepared.latency, outputs)
    ends = tuple(dict.fromkeys(filter(None, (producer_of(model, name) for name in outputs))))
    seen: tuple[str, ...] = ()
    for cut in sorted({stage for stage in found.values() if stage == 0 or stage % 2}):
        members = {node for node, stage in found.items() if stage <= cut}
        first = _first(model, members)
        nodes = tuple(n for n in between(model, first, ends) if n in prepared.plan.by_node)
        if nodes and nodes != seen:
            seen = nodes
            yield Region(inputs=first, outputs=ends, nodes=nodes)


def stages(model: Model, latency: LatencyTable, outputs: Sequence[str]) -> dict[str, int]:
    """Return how far each node is from the outputs that it acts on.

    Twice the number of matrix products on the longest path from its result to the outputs, and
    one more for a matrix product: those of one row, on all branches, are at one stage.
    """
    products = {node.node for node in latency.nodes if node.second}
    depth = dict.fromkeys(outputs, 0)
    found = {}
    for node in reversed(model.nodes):
        reached = [depth[name] for name in node.outputs if name in depth]
        if not reached:
            continue
        behind = max(reached)
        product = node.name in products
        if not node.is_calibration:
            found[node.name] = 2 * behind + product
        for name in node.reads:
            depth[name] = max(depth.get(name, 0), behind + product)
    return found


def _first(model: Model, members: Collection[str]) -> tuple[str, ...]:
    """Return the members that no other member feeds, in graph order."""
    fed: set[str] = set()
    out = []
    for node in model.nodes:
        inside = fed.intersection(node.reads)
        if node.name in members:
            if not inside:
                out.append(node.name)
            fed.update(filter(None, node.outputs))
        elif node.is_calibration and inside:
            fed.update(node.outputs)
    return tuple(out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Trial:
    """A subgraph that was run, with the quantizers inside that keep the base's type."""

    region: Region
    lowered: frozenset[str]
    config: Mapping[str, Any]
    assignment: Assignment
    evaluation: Evaluation


class _Finder:
    """Runs subgraphs and counts them."""

    def __init__(
        self,
        prepared: Prepared,
        measure: Run,
        judge: Judge,
        base: Assignment,
        limit: int,
        progress: Progress,
    ) -> None:
        self.prepared = prepared
        self.measure = measure
        self.judge = judge
        self.base = base
        self.limit = limit
        self.progress = progress
        self.trials: list[_Trial] = []

    @property
    def spent(self) -> bool:
        return len(self.trials) >= self.limit

    def grow(self, nested: Sequence[Region]) -> _Trial | None:
        """Return the smallest region that was found to meet the goal, or the best one run.

        Steps double until a region meets it; the ones skipped last are bisected. Quality may
        fall where a region grows: what is returned has been run, and nothing is inferred.
        """
        failed, met, step, index = -1, None, 1, 0
        while index < len(nested) and not self.spent and met is None:
            if self.judge.meets(self.run(nested[index], frozenset()).evaluation):
                met = index
            elif index == len(nested) - 1:
                break
            else:
                failed, index = index, min(index + step, len(nested) - 1)
                step *= 2
        while met is not None and met - failed > 1 and len(self.trials) < self.limit - THINNING:
            middle = (failed + met) // 2
            if self.judge.meets(self.run(nested[middle], frozenset()).evaluation):
                met = middle
            else:
                failed = middle
        return self.best()

    def thin(self, trial: _Trial, outputs: Sequence[str], samples: int) -> _Trial:
        """Return a trial that gives back what the goal does not need, in halves and quarters."""
        order = self.by_waste(trial, outputs, samples)
        size = max(1, len(order) // 2)
        while order and not self.spent:
            for start in range(0, len(order), size):
                lowered = trial.lowered | set(order[start : start + size])
                if self.spent or self.time(trial.region, lowered) >= self.time_of(trial):
                    continue
                found = self.run(trial.region, lowered)
                if self.judge.meets(found.evaluation):
                    trial = found
                    order = [name for name in order if name not in lowered]
                    break
            else:
                if size == 1:
                    break
                size //= 2
            size = max(1, min(size, len(order)))
        return self.best() or trial

    def by_waste(self, trial: _Trial, outputs: Sequence[str], samples: int) -> list[str]:
        """Return the raised quantizers that can be lowered, those of most waste first.

        Waste is the time that one adds, for the error that it avoids at the failing outputs.
        """
        plan, prepared = self.prepared.plan, self.prepared
        written = {slots.output for slots in plan.slots}
        raised = [
            c.name
            for c in plan.calibrations
            if trial.assignment[c.name] != self.base[c.name] and c.name not in written
        ]
        if not raised:
            return []
        rows = rows_of(prepared.calibrated, plan, "activation")
        rows = rows.take([i for i, name in enumerate(rows.names) if name in set(raised)])
        if not rows.names:
            return []
        table = exact.rank(
            prepared.runner,
            prepared.thresholds,
            self.base,
            at(rows, outputs),
            spread(prepared.samples, samples),
            metrics=("channel-nsr",),
        )
        error = dict(zip(table.rows, table.column("channel-nsr").tolist(), strict=True))
        cost = self._shares_of_time(trial.assignment)
        ratio = {n: cost.get(n, 0.0) / max(error.get(n, 0.0), 1e-30) for n in raised}
        return sorted(raised, key=lambda name: (-ratio[name], plan.index[name]))

    def _shares_of_time(self, assignment: Assignment) -> dict[str, float]:
        """Return what each quantizer adds to the latency; operands of a node share its cost."""
        dear, cheap = (self.prepared.latency.node_us(a) for a in (assignment, self.base))
        out: dict[str, float] = {}
        for node in self.prepared.latency.nodes:
            for name in node.first:
                extra = (dear[node.node] - cheap[node.node]) / len(node.first)
                out[name] = out.get(name, 0.0) + extra
        return out

    def run(self, region: Region, lowered: frozenset[str]) -> _Trial:
        """Measure a region, some quantizers inside left as they were."""
        config = self.config(region, lowered)
        assignment = self.assignment(config)
        self.progress("head", len(self.trials), self.limit)
        name = f"head of {len(region.nodes)}, {len(lowered)} given back"
        trial = _Trial(
            region=region,
            lowered=lowered,
            config=config,
            assignment=assignment,
            evaluation=self.measure(name, assignment),
        )
        if all(assignment != other.assignment for other in self.trials):
            self.trials.append(trial)
        return trial

    def best(self) -> _Trial | None:
        """Return the cheapest trial that meets the goal, else that of the best quality."""
        best: _Trial | None = None
        for trial in self.trials:
            if best is None or self.judge.better(trial.evaluation, best.evaluation):
                best = trial
        return best

    def time(self, region: Region, lowered: frozenset[str]) -> float:
        """Return the modelled latency without running."""
        return self.prepared.latency.total_us(self.assignment(self.config(region, lowered)))

    def time_of(self, trial: _Trial) -> float:
        """Return the modelled latency of a trial."""
        return self.prepared.latency.total_us(trial.assignment)

    def assignment(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Return what a configuration means: a subgraph is never more than what can be asked."""
        prepared = self.prepared
        return dict(
            resolve(
                load_config(config),
                prepared.calibrated,
                prepared.plan,
                prepared.target,
                report=False,
            )
        )

    def config(self, region: Region, lowered: frozenset[str]) -> dict[str, Any]:
        """Return the base's configuration with the subgraph and the inputs it gives back."""
        prepared, inside = self.prepared, set(region.nodes)
        config = quant_config(
            prepared.calibrated,
            prepared.plan,
            prepared.target,
            self.base,
            activation=prepared.activation,
            like=prepared.config,
        )
        subgraph = {
            "inputs": list(region.inputs),
            "outputs": list(region.outputs),
            "qtype": INT16.name,
        }
        nodes = {name: dict(entry) for name, entry in config.pop("node_config", {}).items()}
        for slots in prepared.plan.slots:
            if slots.node not in inside:
                continue
            types = {i: self.base[name] for i, name in slots.inputs.items() if name in lowered}
            whole = len(types) == len(slots.inputs) and slots.output is None
            if whole and len(set(types.values())) == 1:
                nodes[slots.node] = {"qtype": types.popitem()[1]}
            elif types:
                entry = {f"input{index}": qtype for index, qtype in types.items()}
                nodes[slots.node] = {**nodes.get(slots.node, {}), **entry}
        config["subgraph_config"] = {NAME: subgraph}
        return {**config, **({"node_config": nodes} if nodes else {})}

    def trimmed(self, trial: _Trial, raised: frozenset[str]) -> _Trial:
        """Return the same assignment as a subgraph that begins where something is raised."""
        model, by_node = self.prepared.calibrated, self.prepared.plan.by_node
        holding = {n for n in trial.region.nodes if raised.intersection(by_node[n].calibrations)}
        fed = {other for n in holding for other in between(model, (n,), trial.region.outputs)}
        first = _first(model, fed)
        nodes = tuple(n for n in between(model, first, trial.region.outputs) if n in by_node)
        region = Region(inputs=first, outputs=trial.region.outputs, nodes=nodes)
        shown = {name for node in nodes for name in by_node[node].calibrations}
        config = self.config(region, trial.lowered & shown)
        if not first or self.assignment(config) != trial.assignment:
            return trial
        return dataclasses.replace(
            trial, region=region, lowered=trial.lowered & shown, config=config
        )

    def head(self, trial: _Trial) -> Head:
        """Return a trial with everything that was run on the way."""
        plan = self.prepared.plan
        raised = frozenset(n for n, t in trial.assignment.items() if t != self.base[n])
        trial = self.trimmed(trial, raised)
        return Head(
            inputs=trial.region.inputs,
            outputs=trial.region.outputs,
            nodes=tuple(n for n in trial.region.nodes if raised & {*plan.by_node[n].calibrations}),
            given_back=tuple(sorted(trial.lowered, key=lambda name: plan.index[name])),
            met=self.judge.meets(trial.evaluation),
            assignment=trial.assignment,
            evaluation=trial.evaluation,
            quant_config=trial.config,
            trials=tuple(one.evaluation for one in self.trials),
        )

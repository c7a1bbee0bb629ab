"""Reports as a tuning would have found them: invented, but of the size and shape of real ones."""

from __future__ import annotations

import dataclasses

import numpy as np

from jptq.results import (
    Comparison,
    Evaluation,
    Goal,
    LatencyTable,
    NodeTime,
    Outcome,
    OutputError,
    Raised,
    Report,
    SensitivityTable,
    Spread,
)

OUTPUTS = (
    "mask",
    "field",
    "attr",
    "background",
    "cls",
    "box",
    "cls_sl",
    "box_sl",
    "occlusion",
    "cls_arrow",
    "box_arrow",
)


def node_names(count: int) -> tuple[str, ...]:
    """Return names as exporters make them, some longer than any table allows."""
    parts = (
        "Conv_{i}",
        "/model.{i}/cv2/conv/Conv",
        "/encoder/_blocks.{i}/_depthwise_conv/Conv",
        "/bifpndecoder/seg_blocks.{i}/block/block.0/block/block.0/conv/Conv",
        "Add_{i}",
        "/model.{i}/m.0/cv1/act/Mul",
    )
    return tuple(parts[i % len(parts)].format(i=i) for i in range(count))


def comparison(outputs: int, error: float, seed: int) -> Comparison:
    """Return outputs whose ``1 - cosine`` is about ``error``."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(outputs):
        mean = error * float(np.exp(rng.normal(0.0, 0.6)))
        worst = min(mean * float(rng.uniform(3.0, 20.0)), 1.3)
        scale = float(np.exp(rng.normal(0.0, 2.0)))
        made.append(
            OutputError(
                output=OUTPUTS[index] if outputs > 1 else "sigmoid_0.tmp_0",
                cosine=Spread(min=1 - worst, mean=1 - mean, max=1 - mean / 6),
                l1=Spread(min=scale * mean / 3, mean=scale * mean, max=scale * mean * 4),
                l2=Spread(min=scale * mean**2 / 5, mean=scale * mean**2, max=scale * mean**2 * 9),
                chebyshev=Spread(min=scale * 0.1, mean=scale * 0.4, max=scale * 0.9),
                sqnr=Spread(min=4.0, mean=9.5, max=14.0),
            )
        )
    return Comparison(outputs=tuple(made), samples=32)


def make_report(
    *,
    nodes: int = 300,
    outputs: int = 1,
    met: bool = True,
    evaluator: bool = True,
    raised: int = 17,
    metric: str = "mse",
    budget_us: float | None = None,
    seed: int = 0,
) -> Report:
    """Return a report.

    Args:
      nodes: Nodes of the network.
      outputs: Graph outputs, at most 11.
      met: Whether the goal is reached.
      evaluator: Whether there are scores (two tasks) or only cosines.
      raised: Nodes of the final configuration that are not INT8.
      metric: First metric of the ranking.
      budget_us: A latency budget.
      seed: Of the invented numbers.
    """
    rng = np.random.default_rng(seed)
    names = node_names(nodes)
    floating = {"box_f1": 0.8251, "kernel_iou": 0.5752} if evaluator else {}
    base, dear = 1180.4, 2291.7

    def evaluation(
        name: str, share: float, error: float, part: float, **more: object
    ) -> Evaluation:
        tasks = {task: share + 0.004 * i for i, task in enumerate(floating)}
        return Evaluation(
            name=name,
            scores={task: value * floating[task] for task, value in tasks.items()},
            shares=tasks,
            comparison=comparison(outputs, error, seed + 1),
            time_us=base + (dear - base) * part,
            macs_int16=part,
            raised=round(part * nodes),
            **more,  # type: ignore[arg-type]
        )

    int8 = evaluation("int8", 0.8604, 2.1e-2, 0.0)
    int16 = evaluation("int16", 0.9993, 3.0e-5, 1.0)
    final = dataclasses.replace(
        evaluation("final", 0.9931 if met else 0.9712, 2e-4 if met else 4e-3, 0.13), raised=raised
    )
    steps = tuple(
        evaluation(
            f"step {i + 1}",
            1 - 0.14 * float(np.exp(-3.2 * part**0.5)) * float(rng.uniform(0.7, 1.1)),
            2.1e-2 * float(np.exp(-6.5 * part**0.5)) * float(rng.uniform(0.7, 1.3)),
            part,
            predicted_error=float(2e-4 * np.exp(-8 * part**0.5)),
        )
        for i, part in enumerate(np.linspace(0.01, 0.6, 14).tolist())
    )
    every = (int8, *steps, final, int16)
    shadow = [
        e
        for e in every
        if not any(
            (o.time_us or 0) <= (e.time_us or 0) and _quality(o) > _quality(e) for o in every
        )
    ]
    errors = np.sort(np.exp(rng.normal(-11, 2.4, nodes)))[::-1]
    shuffled = rng.permutation(nodes)
    scores = np.empty((nodes, 1, 2))
    scores[shuffled, 0, 0] = errors
    scores[shuffled, 0, 1] = 1 - np.minimum(errors * 3, 0.7)
    metrics = ("mse", "cosine-similarity")
    if metric == "cosine-similarity":
        scores, metrics = scores[:, :, ::-1], ("cosine-similarity", "mse")
    table = SensitivityTable(
        rows=names,
        kind="node",
        members=tuple((f"{name}_HzCalibration",) for name in names),
        candidates=("int8",),
        metrics=metrics,
        score=scores,
        stderr=np.zeros_like(scores),
        outputs=tuple(o.output for o in final.comparison.outputs) if final.comparison else (),
        method="metric",
        samples=32,
    )
    order = table.order()
    chosen = [i for rank, i in enumerate(order) if rank % 4 != 3][:raised]
    return Report(
        model="ppocr4_det.onnx",
        march="nash-e",
        calibration="max-percentile:percentile=0.99995",
        samples=32,
        goal=Goal(
            min_score=0.99 if evaluator else None,
            min_cosine=None if evaluator else 0.999,
            budget_us=budget_us,
        ),
        outcome=Outcome.MET if met else Outcome.NOT_MET,
        headline=f"Measured: {100 * _quality(final):.2f} % of float with {raised} of {nodes} nodes "
        "in INT16.",
        floating=Evaluation(name="float", scores=floating),
        int8=int8,
        int16=int16,
        true_int16=None,
        final=final,
        steps=steps,
        pareto=tuple(shadow),
        reachable=() if met else ("step 3", "step 9"),
        raised=tuple(
            Raised(
                node=names[i],
                op="Conv" if "Conv" in names[i] else "Add",
                candidate="int16",
                why=f"MSE {scores[i, 0, metrics.index('mse')]:.3g} as INT8, "
                f"rank {order.index(i) + 1}; back to INT8 costs 0.4 % of box_f1",
                error_int8=float(scores[i, 0, metrics.index("mse")]),
                rank=order.index(i) + 1,
                cost_us=8.5 + i % 7,
            )
            for i in chosen
        ),
        sensitivity=table,
        latency=LatencyTable(
            target="nash-e",
            nodes=tuple(
                NodeTime(
                    node=name,
                    op="Conv",
                    first=(f"{name}_HzCalibration",),
                    second=(),
                    macs=1_000_000,
                    bytes=65_536,
                    time_us={"int8": 3.9, "int16": 7.6},
                    limit="compute",
                    assumed=("int16_factor", "node_overhead_us") if i % 2 else (),
                )
                for i, name in enumerate(names)
            ),
            constants={
                "peak_int8_tops": (80.0, "doc: board page (dense int8)"),
                "int16_factor": (2.0, "assumed: the factor is not published"),
                "node_overhead_us": (2.0, "assumed: not published"),
            },
        ),
        assignment={f"{name}_HzCalibration": "int8" for name in names},
        quant_config={
            "model_config": {"activation": {"calibration_type": "max"}},
            "node_config": {names[i]: {"qtype": "int16"} for i in chosen},
        },
        search="milp",
        method="probe",
        evaluator_calls=23 if evaluator else 0,
        notes=("Latencies are modelled; the chip was not run.", "5 samples are nearly black."),
        walk_us=1522.8,
    )


def _quality(evaluation: Evaluation) -> float:
    share = evaluation.worst_share
    if share is not None:
        return share
    return evaluation.comparison.min_cosine if evaluation.comparison else 1.0

"""The table of what is known of each target."""

from __future__ import annotations

from jptq.targets import load_target
from jptq.targets.facts import marches


def table() -> str:
    """Return a Markdown table: a row per number, a column per target, then the sources."""
    names = marches()
    targets = {name: load_target(name) for name in names}
    constants = {
        name: target.constants()
        | {n: (fact.value, fact.source) for n, fact in target.integers.facts().items()}
        for name, target in targets.items()
    }
    lines = [["number", *names, "source"], ["---"] * (len(names) + 2)]
    for fact in constants[names[0]]:
        values = [constants[name][fact] for name in names]
        sources = list(dict.fromkeys(source for _, source in values))
        if len(sources) > 1:
            sources = [f"{n}: {constants[n][fact][1]}" for n in names]
        lines.append([f"`{fact}`", *(f"{value:.10g}" for value, _ in values), "; ".join(sources)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)

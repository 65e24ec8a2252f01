"""Where an ONNX graph really runs, node by node.

ONNX Runtime silently gives the CPU every node that a provider does not take.  Shape arithmetic may
go there.  The operators that cost time may not: else a bundle claims a GPU and runs on a CPU.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgepack_runtime.paths import write_whole

# The operators that a transformer spends its time in.
HEAVY = frozenset(
    {
        "MatMul",
        "Gemm",
        "Conv",
        "Attention",
        "MultiHeadAttention",
        "QAttention",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "QLinearMatMul",
        "FusedMatMul",
        "FusedGemm",
        "LayerNormalization",
        "SkipLayerNormalization",
        "Gelu",
        "FastGelu",
        "BiasGelu",
        "Softmax",
        "Erf",
        "EmbedLayerNormalization",
        "MatMulNBits",
        "QGemm",
        "GroupQueryAttention",
        "SimplifiedLayerNormalization",
        "SkipSimplifiedLayerNormalization",
    }
)

Placement = Mapping[str, Mapping[str, int]]


def assigned(session: Any) -> Placement | None:
    """Return {provider: {operator: nodes}} as a session reports it; None before ONNX Runtime 1.24.

    The session must have been made with `session.record_ep_graph_assignment_info` set.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    found: dict[str, Counter[str]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        counts = found.setdefault(subgraph.ep_name, Counter())
        counts.update(node.op_type for node in subgraph.get_nodes())
    return found


def profiled(make: Callable[[str], Any], run: Callable[[Any], object]) -> Placement:
    """Return {provider: {operator: nodes}} by profiling one run, for older versions.

    Args:
        make: opens a session that writes its profile to files with the given prefix.
        run: runs it once.

    """
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        session = make(str(Path(folder) / "profile"))
        run(session)
        events = json.loads(Path(session.end_profiling()).read_text())
    nodes = {
        (event["args"]["provider"], event["args"].get("node_index", event["name"])): event["args"][
            "op_name"
        ]
        for event in events
        if event.get("cat") == "Node" and "provider" in event.get("args", {})
    }
    found: dict[str, Counter[str]] = {}
    for (provider, _), operator in nodes.items():
        found.setdefault(provider, Counter())[operator] += 1
    return found


def read(path: Path) -> Placement | None:
    """Return a cached placement; None if there is none that can be read."""
    try:
        kept = json.loads(path.read_text())
        return {str(p): {str(o): int(n) for o, n in row.items()} for p, row in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write(path: Path, placement: Placement) -> None:
    """Cache a placement; it holds for one graph and one machine."""
    write_whole(path, json.dumps(placement).encode())


def strays(placement: Placement, wanted: str) -> dict[str, int]:
    """Return {"operator on provider": nodes} of heavy operators that run on another provider."""
    return {
        f"{operator} on {provider}": count
        for provider, counts in placement.items()
        if provider != wanted
        for operator, count in counts.items()
        if operator in HEAVY
    }


def totals(placement: Placement) -> dict[str, int]:
    """Return {provider: nodes}."""
    return {provider: sum(counts.values()) for provider, counts in placement.items()}

"""An ONNX graph under construction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

OPSET = 18
MICROSOFT = "com.microsoft"


@dataclass
class OnnxGraph:
    """The nodes and weights so far."""

    nodes: list[Any] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)

    def node(self, kind: str, inputs: Sequence[str], *, name: str = "", **how: Any) -> str:
        """Add a node with one output; return the output."""
        return self.nodes_of(kind, inputs, [name or f"{kind}_{len(self.nodes)}"], **how)[0]

    def nodes_of(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **how: Any
    ) -> Sequence[str]:
        """Add a node; return its outputs."""
        from onnx import helper

        domain = how.pop("domain", "")
        label = next(name for name in outputs if name)
        self.nodes.append(helper.make_node(kind, inputs, outputs, label, domain=domain, **how))
        return outputs

    def weight(self, name: str, array: Any) -> str:
        """Add a weight once; return its name."""
        import numpy as np
        from onnx import numpy_helper

        if name not in self.weights:
            self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def number(self, value: float) -> str:
        """Add a float32 constant."""
        import numpy as np

        return self.weight(f"number_{value!r}", np.array(value, dtype=np.float32))

    def ints(self, name: str, values: int | Sequence[int]) -> str:
        """Add a constant of whole numbers."""
        import numpy as np

        return self.weight(name, np.array(values, dtype=np.int64))

    def takes(self, name: str, kind: str, shape: Sequence[int | str]) -> str:
        """Declare an input; return its name."""
        self.inputs.append(_info(name, kind, shape))
        return name

    def gives(self, name: str, kind: str, shape: Sequence[int | str]) -> str:
        """Declare an output; return its name."""
        self.outputs.append(_info(name, kind, shape))
        return name

    def finish(self, name: str) -> Any:
        """Return the `ModelProto`."""
        from onnx import helper

        weights = list(self.weights.values())
        made = helper.make_graph(self.nodes, name, self.inputs, self.outputs, weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(made, opset_imports=opsets)


def _info(name: str, kind: str, shape: Sequence[int | str]) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, getattr(TensorProto, kind), list(shape))

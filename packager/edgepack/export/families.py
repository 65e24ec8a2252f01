"""Families that Optimum could export like related ones, if it knew their names."""

from __future__ import annotations

from functools import cache

from edgepack.tasks import optimum_tasks


@cache
def register_families() -> None:
    """Register ERNIE with Optimum: it is BERT with one more embedding, which its models ignore."""
    from optimum.exporters.onnx.model_configs import BertOnnxConfig
    from optimum.exporters.openvino import model_configs as _  # noqa: F401 (OpenVINO's own first)
    from optimum.exporters.tasks import TasksManager

    for exporter in ("onnx", "openvino"):
        register = TasksManager.create_register(exporter)
        register("ernie", *optimum_tasks(), library_name="transformers")(BertOnnxConfig)

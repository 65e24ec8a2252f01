"""The build host's half of edgepack: a Hugging Face model in, one bundle per target out."""

import sys

__version__ = "0.1.0"

# NNCF and OpenVINO send usage data to their makers, unless this package is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

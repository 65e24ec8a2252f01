"""Try several settings of static quantization, because no rule is right for every model.

A trial is a SmoothQuant strength and a way to find activation ranges.  Each trial is quantized and
run through the runtime on the texts reserved for comparison.  The trial whose outputs are closest
to the float model's wins.  The first trial is NNCF's own choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgepack.export import open_as_device
from edgepack.export.traits import copy_traits
from edgepack.model.opened import likeness, move_files, read_items
from edgepack_runtime.bundle.manifest import canonical_json

_DIGITS = 6
_REPORT = "search.json"


@dataclass(frozen=True)
class Trial:
    """One way to quantize."""

    alpha: float
    """The strength of SmoothQuant, from 0 to 1; -1 for off."""
    ranges: str
    """How activation ranges are found, see `_ranges`; empty for NNCF's way."""


# The most promising first, so that a small budget is well spent.
TRIALS = (
    Trial(0.95, ""),
    Trial(0.5, ""),
    Trial(0.95, "percentile"),
    Trial(0.7, ""),
    Trial(0.95, "min-max"),
    Trial(0.5, "percentile"),
    Trial(-1, ""),
    Trial(0.95, "histogram"),
    Trial(0.3, ""),
    Trial(-1, "percentile"),
    Trial(0.5, "min-max"),
    Trial(0.5, "histogram"),
)


def parameters(trial: Trial, *, tied: bool) -> Any:
    """Return NNCF's advanced settings for a trial.

    Tied weights are never smoothed: each use would be scaled in its own way, and stored separately.
    Activations have one scale: NNCF would give a depthwise convolution's activations one for each
    channel, and share them with a layer norm whose second axis is the tokens.
    """
    import nncf
    from nncf.quantization.advanced_parameters import QuantizationParameters

    alpha = -1 if tied else trial.alpha
    found = nncf.AdvancedQuantizationParameters(
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=alpha),
        activations_quantization_params=QuantizationParameters(per_channel=False),
    )
    if trial.ranges:
        found.activations_range_estimator_params = _ranges(trial.ranges)
    return found


def _ranges(name: str) -> Any:
    from nncf.quantization.range_estimator import (
        AggregatorType,
        RangeEstimatorParameters,
        RangeEstimatorParametersSet,
        StatisticsCollectorParameters,
        StatisticsType,
    )

    if name == "min-max":
        return RangeEstimatorParametersSet.MINMAX
    if name == "histogram":
        return RangeEstimatorParametersSet.HISTOGRAM
    side = StatisticsCollectorParameters(
        statistics_type=StatisticsType.QUANTILE,
        aggregator_type=AggregatorType.MEAN,
        quantile_outlier_prob=1e-4,
    )
    return RangeEstimatorParameters(min=side, max=side)


def quantize_best(
    quantize: Callable[[Trial, Path], None],
    engine: str,
    count: int,
    inputs: Mapping[str, Path],
    out: Path,
) -> None:
    """Quantize in `count` ways and write the best to `out`, with a report if there were several.

    Args:
        quantize: writes one trial's files to a folder.
        engine: the engine that runs them.
        count: how many of `TRIALS` to try.
        inputs: `export` (of `engine`), `tokenizer`, `texts`.
        out: the folder to fill.

    """
    if count == 1:
        quantize(TRIALS[0], out)
        return
    texts = read_items(inputs["texts"], "evaluation")
    wanted = _outputs(inputs["tokenizer"], inputs["export"], engine, texts, "float32")
    rows: list[dict[str, Any]] = []
    best = -2.0
    for trial in TRIALS[:count]:
        with TemporaryDirectory(dir=out) as name:
            folder = Path(name)
            quantize(trial, folder)
            copy_traits(inputs["export"], folder)
            got = _outputs(inputs["tokenizer"], folder, engine, texts, "int8")
            score = likeness(inputs["tokenizer"], wanted, got).mean_cosine
            rows.append(
                {
                    "alpha": trial.alpha,
                    "ranges": trial.ranges or "nncf",
                    "cosine": round(score, _DIGITS),
                }
            )
            if score > best:
                best = score
                move_files(folder, out)
    (out / _REPORT).write_bytes(canonical_json(rows))


def _outputs(
    tokenizer: Path,
    folder: Path,
    engine: str,
    texts: Sequence[str | tuple[str, str]],
    precision: str,
) -> list[Any]:
    model = open_as_device(tokenizer, folder, engine, precision)
    return model.outputs(texts)

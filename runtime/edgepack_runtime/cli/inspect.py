"""`edgepack-runtime inspect`: what a bundle says about itself."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgepack_runtime.bundle.bundle import Bundle


def inspect(args: argparse.Namespace, show: Callable[[str], None]) -> None:
    """Show a bundle, for people or as JSON."""
    from edgepack_runtime.bundle.manifest import encode
    from edgepack_runtime.store.find import open_bundle

    bundle = open_bundle(args.bundle)
    manifest = bundle.manifest
    if args.json:
        show(
            json.dumps({"digest": bundle.digest, **encode(manifest)}, ensure_ascii=False, indent=1)
        )
        return
    show(f"{manifest.name} {manifest.version} (release {manifest.release}) for {manifest.target}")
    show(f"digest   {bundle.digest}")
    task = manifest.task
    most = f", up to {task.text.max_length} tokens" if task.text else ""
    show(f"task     {task.name}, {len(task.labels)} labels{most}")
    for variant in manifest.variants:
        size = sum(manifest.file(path).size for path in variant.files)
        agreement = variant.measured.get("agreement")
        shown = "" if agreement is None else f", agreement with float {agreement:.2%}"
        show(
            f"variant  {variant.name}: {variant.engine}/{variant.provider}, "
            f"{variant.precision}, {size / 1e6:.1f} MB{shown}"
        )
        if variant.adapters:
            show(f"         adapters: {', '.join(variant.adapters)}")
    for line in _measured(bundle):
        show(line)


def _measured(bundle: Bundle) -> Iterator[str]:
    """Say which variant was measured fastest here, in all and for each workload."""
    from edgepack_runtime.device import measured
    from edgepack_runtime.device.facts import probe
    from edgepack_runtime.model.ranking import rank
    from edgepack_runtime.tasks import find

    device = probe()
    latency = measured.load(bundle.digest, device).latency_ms
    for workload in (None, *find(bundle.manifest.task.name).CELLS) if latency else ():
        ranked, _ = rank(bundle, device, any_device=True, workload=workload)
        times = ", ".join(
            f"{variant.name} {latency[variant.name][workload]:.1f} ms"
            for variant, _ in ranked
            if workload and workload in latency.get(variant.name, {})
        )
        if ranked and (times or not workload):
            yield f"fastest  {workload or 'in all'}: {times or ranked[0][0].name}"

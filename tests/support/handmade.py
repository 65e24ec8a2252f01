"""A bundle made by hand in milliseconds: a word tokenizer and the null engine."""

from __future__ import annotations

import dataclasses
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from edgepack.bundle import pack
from edgepack_runtime.bundle.description import Task, Text
from edgepack_runtime.bundle.manifest import (
    Graph,
    Manifest,
    Requires,
    Tolerance,
    Variant,
    canonical_json,
    encode,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "turn", "on", "off", "the", "lights", "please", "a"]
LABELS = ("alpha", "beta", "gamma")


def tokenizer(max_words: list[str] = WORDS) -> bytes:
    """Return the `tokenizer.json` of a word-level tokenizer with [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(max_words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return str(made.to_str()).encode()


def bundle(
    path: Path,
    *,
    task: str = "text-classification",
    layout: str = "epk",
    change: dict[str, Any] | None = None,
    extra: dict[str, bytes] | None = None,
    variants: list[dict[str, Any]] | None = None,
) -> Path:
    """Write a bundle of the null engine.

    Args:
        path: the file or folder to make.
        task: text- or token-classification.
        layout: as `pack.write_bundle` has it.
        change: keys of the manifest to overwrite, as plain JSON.
        extra: more files by path.
        variants: fields of each variant that differ from the plain one.

    """
    rank = 2 if task == "text-classification" else 3
    graph = json.dumps({"rank": rank, "size": len(LABELS)}).encode()
    files = {
        "tokenizer.json": tokenizer(),
        "golden.json": canonical_json(golden(rank)),
        **dict.fromkeys(_graphs(variants or [{}]), graph),
        **(extra or {}),
    }
    with tempfile.TemporaryDirectory() as name:
        content = {}
        for i, (inside, value) in enumerate(files.items()):
            content[inside] = Path(name) / str(i)
            content[inside].write_bytes(value)
        packed = pack.Content(content)
        manifest = _manifest(task, packed, variants or [{}])
        with mock.patch.object(pack, "encode", lambda m: {**encode(m), **(change or {})}):
            pack.write_bundle(manifest, packed, path, layout=layout)
    return path


def golden(rank: int = 2) -> dict[str, Any]:
    """Return one golden input with the output that the null engine gives."""
    ids = [2, 4, 5, 7, 8, 3]
    chosen = [sum(ids)] if rank == 2 else ids
    data = [float(i % len(LABELS) == column) for i in chosen for column in range(len(LABELS))]
    shape = [len(LABELS)] if rank == 2 else [len(ids), len(LABELS)]
    return {"inputs": ["turn on the lights"], "outputs": [{"shape": shape, "data": data}]}


def spans(path: Path) -> dict[str, tuple[int, int]]:
    """Return where each member's content stands in an archive: (offset, size)."""
    with tarfile.open(path) as archive:
        return {item.name: (item.offset_data, item.size) for item in archive}


def graph_of(*paths: str, name: str = "model") -> Graph:
    """Return a graph of the null engine with these files."""
    return Graph(name, paths, ("input_ids", "attention_mask"), ("output",))


def _graphs(variants: list[dict[str, Any]]) -> list[str]:
    """Name the graph of each variant."""
    return [f"{fields.get('name', 'null')}/null.json" for fields in variants]


def _manifest(task: str, content: pack.Content, variants: list[dict[str, Any]]) -> Manifest:
    plain = Variant(
        name="null",
        engine="null",
        provider="null",
        precision="float32",
        scheme="none",
        graphs=(),
        requires=Requires(),
        tolerance=Tolerance(0.99, 0.99),
    )
    text = Text(tokenizer="tokenizer.json", max_length=16, pad_id=0, unk_id=1)
    return Manifest(
        format=1,
        name="small",
        version="1.0",
        release=1,
        target="any",
        arch="any",
        task=Task(name=task, text=text, labels=LABELS),
        variants=tuple(
            dataclasses.replace(plain, **{"graphs": (graph_of(path),), **fields})
            for fields, path in zip(variants, _graphs(variants), strict=True)
        ),
        files=content.entries(),
        golden="golden.json",
    )

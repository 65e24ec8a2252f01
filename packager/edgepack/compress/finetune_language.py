"""Fine-tune a language model on texts: it learns to expect each next token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack.compress import training, windows
from edgepack.compress.finetune import Settings
from edgepack.compress.folder import load, save
from edgepack.compress.job import Job
from edgepack.compress.launch import first_process, launch
from edgepack.compress.tensors import read_training

TOOLS = training.TOOLS


def finetune(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the fine-tuned model.

    Raises:
        InputError: there is hardly any text, or `training.fit` refuses.

    """
    launch(__name__, settings, inputs, out)


def work(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Fine-tune in this process, which may be one of several."""
    from transformers import set_seed

    set_seed(settings.schedule.seed)
    model, tokenizer = load(inputs["model"], settings.task)
    examples = read_training(inputs, settings.task, settings.columns)
    rows = windows.pack(model, tokenizer, examples, settings.max_length)
    learn, held = windows.divide(rows, holds_out=settings.schedule.holds_out)
    job = Job(model, rows.lengths.tolist(), learn, rows.pad, _loss, held)
    record = training.fit(job, settings.schedule, out)
    if first_process():
        record.write(out, "finetune")
        save(model, tokenizer, out)


def _loss(model: Any, batch: dict[str, Any]) -> Any:
    return windows.loss(model(**batch, use_cache=False)[0].float(), windows.next_tokens(batch))

"""Knowledge distillation of language models: a student learns how probable each token is.

The teacher runs beside the student: what it says of one token is as wide as the vocabulary, too
much to be stored.  A student with a trimmed vocabulary learns the probabilities among its own
tokens.  The losses are those of `distill`, token by token.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack.compress import losses, training, windows
from edgepack.compress.distill import Settings, shallow
from edgepack.compress.folder import load, save
from edgepack.compress.job import Job
from edgepack.compress.launch import first_process, launch
from edgepack.compress.tensors import read_training
from edgepack_runtime.errors import InputError

TOOLS = training.TOOLS
_KIND = "next_token"


def distill(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the student.

    Args:
        settings: see `distill.Settings`.
        inputs: `model` (what the student starts from), `teacher`, and `data` or `unlabelled`.
        out: the folder to fill.

    Raises:
        InputError: there is hardly any text, the student has a token that the teacher lacks, or
            `training.fit` refuses.

    """
    launch(__name__, settings, inputs, out)


def work(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Do it in this process, which may be one of several."""
    from transformers import set_seed

    set_seed(settings.schedule.seed)
    model, tokenizer = load(inputs["model"], settings.task)
    shallow(model, settings.layers)
    model.get_input_embeddings().weight.requires_grad_(not settings.freeze_embeddings)
    teacher = _Teacher(inputs["teacher"], settings, tokenizer)
    examples = read_training(inputs, settings.task, settings.columns)
    rows = windows.pack(model, tokenizer, examples, settings.max_length)
    learn, held = windows.divide(rows, holds_out=settings.schedule.holds_out)
    job = Job(
        model,
        rows.lengths.tolist(),
        learn,
        rows.pad,
        teacher.loss,
        held,
        student=True,
        beside=teacher.model,
    )
    record = training.fit(job, settings.schedule, out)
    if first_process():
        record.write(out, "distill")
        save(model, tokenizer, out)


class _Teacher:
    """A teacher that runs on every batch, and the student's loss."""

    def __init__(self, folder: Path, settings: Settings, tokenizer: Any) -> None:
        import torch

        self.model, own = load(folder, settings.task)
        self.model.eval().requires_grad_(requires_grad=False)
        self._settings = settings
        words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        known = own.get_vocab()
        if missing := [word for word in words if word not in known]:
            raise InputError(f"distill: the teacher does not know the token {missing[0]!r}")
        numbers = [known[word] for word in words]
        same = numbers == list(range(len(own)))
        self._numbers = None if same else torch.tensor(numbers)

    def loss(self, model: Any, batch: dict[str, Any]) -> Any:
        """Return the mean loss over the tokens of a batch."""
        settings, mask = self._settings, batch["attention_mask"]
        inner = settings.transfer == "hidden"
        found = model(**batch, use_cache=False, output_hidden_states=inner)
        said = self._say(batch, inner=inner)
        logits, wanted = found.logits.float(), said.logits.float()
        if self._numbers is not None:
            numbers = self._numbers.to(wanted.device)
            logits, wanted = logits[..., : len(numbers)], wanted[..., numbers]
        each = losses.soft(logits, wanted, _KIND, settings.temperature)
        total = (1 - settings.hard) * (each * mask).sum() / mask.sum()
        if settings.hard:
            total = total + settings.hard * windows.loss(logits, windows.next_tokens(batch))
        if inner:
            mine, theirs = (x.hidden_states[-1].float() for x in (found, said))
            total = total + settings.transfer_weight * losses.hidden(mine, theirs, mask)
        return total

    def _say(self, batch: Mapping[str, Any], *, inner: bool) -> Any:
        import torch

        ids = batch["input_ids"]
        if next(self.model.parameters()).device != ids.device:
            self.model.to(ids.device)
        ids = ids if self._numbers is None else self._numbers.to(ids.device)[ids]
        with torch.no_grad():
            return self.model(
                ids,
                attention_mask=batch["attention_mask"],
                use_cache=False,
                output_hidden_states=inner,
            )

"""Round weights to four bits so that the products change least on texts (GPTQ).

Numbers are rounded one input after the other, and what each rounding adds to the products is taken
from the inputs that are still to come.  Which inputs go together is seen in the texts: `Squares`.

Source: Frantar et al. 2022, arXiv 2210.17323.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgepack.export.decoder.run import open_session, run

_DAMPING = 0.01  # of the mean square; without it, rare inputs make the matrix singular
_AT_ONCE = 128  # inputs whose errors are spread over the rest together
_CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)  # shares of a block's largest number
_MEMORY = 1 << 30  # bytes of squares that are counted in one pass over the texts
_LOW, _HIGH = -8, 7


class Squares(Mapping[str, Any]):
    """How the inputs of each product go together: X'X [in, in] over all tokens of the texts.

    They are counted when they are first asked for, those of several products in one pass.
    """

    def __init__(self, model: Any, texts: Sequence[Sequence[int]]) -> None:
        weights = {t.name: t.dims[0] for t in model.graph.initializer if len(t.dims) == 2}
        products = [n for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights]
        self._inputs = {node.input[1]: node.input[0] for node in products}
        self._sizes = {node.input[1]: weights[node.input[1]] for node in products}
        self._model, self._texts = model, texts
        self._session: Any = None
        self._found: dict[str, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, name: str) -> Any:
        if name not in self._found:
            self._found.clear()
            self._count(self._group(name))
        return self._found[name]

    def _group(self, first: str) -> list[str]:
        """Return this product and those after it, as many as memory holds."""
        names = list(self._inputs)
        found, used = [first], self._sizes[first] ** 2 * 4
        for name in names[names.index(first) + 1 :]:
            used += self._sizes[name] ** 2 * 4
            if used > _MEMORY:
                break
            found.append(name)
        return found

    def _count(self, names: Sequence[str]) -> None:
        import numpy as np

        self._found = {n: np.zeros([self._sizes[n]] * 2, np.float32) for n in names}
        watched = list(dict.fromkeys(self._inputs[name] for name in names))
        for ids in self._texts:
            values = dict(zip(watched, self._run(watched, ids), strict=True))
            for name in names:
                rows = values[self._inputs[name]].reshape(-1, self._sizes[name])
                self._found[name] += rows.T @ rows

    def _run(self, names: Sequence[str], ids: Sequence[int]) -> Any:
        """Return values inside of the graph, for one text."""
        if self._session is None:
            self._session = open_session(self._model, set(self._inputs.values()))
        return run(self._session, names, ids, last=True)


def round_four(weight: Any, squares: Any, block: int) -> tuple[Any, Any]:
    """Round a weight [in, out] to whole numbers from -8 to 7.

    Args:
        weight: float32.
        squares: X'X [in, in] of the product's inputs.
        block: inputs that share a scale.

    Returns:
        The numbers [out, blocks, block] as int16, and the scales [out, blocks] as float32.

    """
    import numpy as np

    size, count = weight.shape
    rest = np.pad(weight.T.astype(np.float32), [(0, 0), (0, -size % block)])
    spread = _spread(np.pad(squares, [(0, -size % block)] * 2))
    whole = np.zeros(rest.shape, np.int16)
    scales = np.zeros((count, rest.shape[1] // block), np.float32)
    for start in range(0, rest.shape[1], _AT_ONCE):
        end = min(start + _AT_ONCE, rest.shape[1])
        errors = np.zeros((count, end - start), np.float32)
        for at in range(start, end):
            if at % block == 0:
                weights = 1 / spread.diagonal()[at : at + block] ** 2
                scales[:, at // block] = _scales(rest[:, at : at + block], weights)
            scale = scales[:, at // block]
            whole[:, at] = np.clip(np.rint(rest[:, at] / scale), _LOW, _HIGH)
            error = (rest[:, at] - whole[:, at] * scale) / spread[at, at]
            rest[:, at + 1 : end] -= np.outer(error, spread[at, at + 1 : end])
            errors[:, at - start] = error
        rest[:, end:] -= errors @ spread[start:end, end:]
    return whole.reshape(count, -1, block), scales


def _spread(squares: Any) -> Any:
    """Return how the error of each input goes over to the later ones: [in, in], upper."""
    import numpy as np

    found = squares.astype(np.float64)
    unseen = found.diagonal() == 0
    found[unseen, unseen] = 1.0
    found[np.diag_indices_from(found)] += _DAMPING * found.diagonal().mean()
    inverse = np.linalg.inv(found)
    return np.linalg.cholesky(inverse).T.astype(np.float32)


def _scales(part: Any, weights: Any) -> Any:
    """Return the scale [out] of a block [out, block] that keeps it best, by weights [block].

    The largest number becomes -8, so the scale has its sign; or a bit less, and is cut.
    """
    import numpy as np

    largest = np.take_along_axis(part, np.abs(part).argmax(axis=1)[:, None], axis=1)[:, 0]
    largest = np.where(largest == 0, 1e-12, largest)
    best, least = None, None
    for share in _CLIPS:
        scale = (largest * share / _LOW).astype(np.float32)
        whole = np.clip(np.rint(part / scale[:, None]), _LOW, _HIGH)
        loss = ((part - whole * scale[:, None]) ** 2 * weights).sum(axis=1)
        if best is None or least is None:
            best, least = scale, loss
        else:
            best, least = np.where(loss < least, scale, best), np.minimum(loss, least)
    return best

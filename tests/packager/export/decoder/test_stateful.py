"""Every family of decoders on OpenVINO: its graph writes what transformers writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoders import KINDS, make

from edgepack.export import ir
from edgepack.export.decoder import stateful
from edgepack.export.decoder.families import FAMILIES
from edgepack.export.naming import decoder_layer, layer_of
from edgepack_runtime.bundle.manifest import Requires, Tolerance, Variant
from edgepack_runtime.engines import openvino
from edgepack_runtime.engines._ov_paged import PagedSession
from edgepack_runtime.errors import InputError
from edgepack_runtime.generation.reader import Reader, all_logits

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporters
TOKENS = 256
PROMPT = [5, 17, 40, 3, 80, 22]
HERE = [kind for kind in KINDS if kind.partition(" ")[0] not in stateful.NOT_HERE]
FEW = sorted({kind.partition(" ")[0]: kind for kind in reversed(HERE)}.values())
SCALED = "gpt2 scaled"  # Optimum leaves its scale out


def opened(folder: Path, precision: str) -> PagedSession:
    """Open the graph of a variant."""
    variant = Variant(
        "v",
        "openvino",
        "CPU",
        precision,
        "none",
        (),
        Requires(),
        Tolerance(0, 0),
        stateful.options(folder),
    )
    files = {name: memoryview((folder / name).read_bytes()) for name in ir.FILES}
    session = openvino.open_session(files, variant, 1, None)
    assert isinstance(session, PagedSession)
    return session


def make_variant(
    kind: str, precision: str, folder: Path, kept: tuple[str, ...] = ()
) -> PagedSession:
    """Export a model and open it."""
    for name in ("export", precision):
        (folder / name).mkdir(exist_ok=True)
    make(kind).save_pretrained(folder / "model")
    stateful.export(folder / "model", folder / "export")
    windows = [list(range(1, 90))]
    settings = stateful.Settings(precision, kept)
    stateful.make_variant(settings, folder / "export", windows, folder / precision)
    return opened(folder / precision, precision)


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[] if k in FEW else pytest.mark.slow) for k in HERE]
)
def test_a_family_writes_what_transformers_writes(kind: str, tmp_path: Path) -> None:
    """256 tokens greedily, token for token, whether they are read at once or one by one."""
    if kind == SCALED:
        pytest.skip("transformers' own sdpa attention, which Optimum exports, leaves its scale out")
    import torch

    session = make_variant(kind, "float32", tmp_path)
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        wanted = (
            make(kind)
            .generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
                pad_token_id=0,
            )[0]
            .tolist()
        )
    logits = all_logits(session.begin(len(wanted)), wanted)[len(PROMPT) - 1 : -1].copy()
    logits[:, 95] = -np.inf  # as min_new_tokens has it
    assert logits.argmax(1).tolist() == wanted[len(PROMPT) :]
    assert len(set(wanted)) > 8, "the text is too dull to tell anything"
    reader = Reader(session.begin(len(wanted) + 1), paired=True)
    steps = [reader.logits([token])[0] for token in wanted[:40]]
    assert (np.stack(steps) == all_logits(session.begin(40), wanted[:40])).all()


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("kind", ["gpt2", "qwen3", "phi odd part"])
def test_small_weights_are_near_and_read_alike(kind: str, precision: str, tmp_path: Path) -> None:
    """Weights take half the room, the logits stay near, and pieces give the bits of the whole."""
    session = make_variant(kind, precision, tmp_path)
    ids = list(np.random.default_rng(0).integers(1, 90, 120))
    got = all_logits(session.begin(120), ids)
    exact = opened(_float(tmp_path), "float32")
    wanted = all_logits(exact.begin(120), ids)
    cosine = (wanted * got).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(got, axis=1)
    assert np.median(cosine) > {"int8": 0.99, "int4": 0.85}[precision]
    sizes = [(tmp_path / n / ir.FILES[1]).stat().st_size for n in ("float32", precision)]
    assert sizes[1] < sizes[0] * 0.6
    for piece in (2, 3, 5, 8, 16, 40):  # none leaves a single row, which has its own kernel
        reader = Reader(session.begin(120))
        parts = [reader.logits(ids[at : at + piece]) for at in range(0, 120, piece)]
        assert (np.concatenate(parts) == got).all(), piece


def _float(folder: Path) -> Path:
    (folder / "float32").mkdir()
    stateful.make_variant(stateful.Settings("float32"), folder / "export", [], folder / "float32")
    return folder / "float32"


def test_a_state_refuses_what_it_has_no_room_for(tmp_path: Path) -> None:
    """Too many positions, those of another model, and a state that was closed."""
    session = make_variant("llama", "float32", tmp_path)
    feeds = {"input_ids": np.ones((1, 33), np.int64), "rows": np.array([0])}
    state = session.begin(20)
    with pytest.raises(InputError, match="holds 32 positions, not 33"):
        state.run(feeds)
    state.grow(40)
    state.run(feeds)
    held = state.arrays()
    assert {array.shape[1] for array in held.values()} == {33}
    wrong = {name: array[:, :, 1:] for name, array in held.items()}
    with pytest.raises(InputError, match="another graph"):
        session.begin(4).restore(wrong)
    other = session.begin(4)
    other.restore(held)
    assert (other.length, other.capacity) == (33, 64)
    state.close()
    with pytest.raises(InputError, match="was closed"):
        state.run(feeds)


def test_what_cannot_be_written_is_said() -> None:
    """A family that Optimum exports wrongly is left out, and others as in the other engine."""
    assert "caps attention" in stateful.why_not("gemma2")
    assert "not for bert" in stateful.why_not("bert")
    assert not any(stateful.why_not(family) for family in FAMILIES if family != "gemma2")


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_layer_that_repair_leaves_stays_in_float(precision: str, tmp_path: Path) -> None:
    """Its products have float weights, and those of the others have not."""
    make_variant("llama", precision, tmp_path, ("layers.1",))
    model = ir.core().read_model(tmp_path / precision / ir.FILES[0])
    kinds: dict[str, set[str]] = {}
    for node in model.get_ops():
        layer = decoder_layer(layer_of(node.get_friendly_name()))
        if node.get_type_name() == "MatMul" and layer and "proj" in node.get_friendly_name():
            weight = node.input_value(1).get_node()
            while weight.get_type_name() != "Constant":
                weight = weight.input_value(0).get_node()
            kinds.setdefault(layer, set()).add(weight.get_element_type().get_type_name())
    assert kinds["layers.1"] == {"f32"}
    assert "f32" not in kinds["layers.0"]

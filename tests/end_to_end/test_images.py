"""Images: pixels as the model's own processor makes them, and answers as the pipeline gives."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agreement
import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from PIL import Image

import edgepack_runtime as er
from edgepack.cli import main
from edgepack.data.images import as_bytes, drawn
from edgepack.model import pictures
from edgepack.recipe.target import find_target
from edgepack_runtime import DeviceError, InputError
from edgepack_runtime.inputs.image import ImageReader, open_image
from edgepack_runtime.model.selftest import selftest

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers' pipelines and exporters
ENGINES = ["openvino-float32", "onnxruntime-float32"]
LABELS = ["cat", "dog", "fish", "bird", "horse", "cow", "bee"]
Get = Callable[[str], tuple[Path, Path]]
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": (
        "ViT",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "image_size": 32,
            "patch_size": 8,
        },
    ),
    "resnet": (
        "ConvNext",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    ),
    "mobilenet_v2": ("MobileNetV2", {"image_size": 48, "depth_multiplier": 0.35}),
}
PROCESSORS: dict[str, dict[str, Any]] = {
    "vit": {"size": {"height": 32, "width": 32}},
    "resnet": {"size": {"shortest_edge": 48}, "crop_pct": 0.875},
    "mobilenet_v2": {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}},
}


def pictured(count: int) -> list[Any]:
    """Return drawn pictures of many shapes, with thin and tiny ones.

    None has a side of 1 or 3, which transformers takes for colours.
    """
    odd = [Image.new("RGB", size, (200, 30, 90)) for size in ((2, 2), (2, 300), (517, 4))]
    return [*odd, *(drawn(seed) for seed in range(count))]


def _make(family: str, folder: Path) -> Path:
    """Write a small model of a family with random weights, and its image processor."""
    kind, sizes = FAMILIES[family]
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {n: i for i, n in enumerate(LABELS)}}
    config = transformers.AutoConfig.for_model(family, **sizes, **labels)
    torch.manual_seed(5)
    model = transformers.AutoModelForImageClassification.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else None
    model.save_pretrained(folder)
    processor = getattr(transformers, f"{kind}ImageProcessor")(**PROCESSORS[family])
    processor.save_pretrained(folder)
    return folder


def _build(model: Path, out: Path, *more: str) -> Path:
    arguments = ["build", str(model), "--name", "m", "-o", str(out), *more]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return next(out.glob("*.epk"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Get:
    """Return a function from a family to its model and its float bundle, made once."""
    found: dict[str, tuple[Path, Path]] = {}

    def get(family: str) -> tuple[Path, Path]:
        if family not in found:
            folder = tmp_path_factory.mktemp("images")
            model = _make(family, folder / "model")
            found[family] = model, _build(model, folder, "-t", "native", "--precision", "float32")
        return found[family]

    return get


def pipeline_for(folder: Path) -> Any:
    """Return the pipeline with the slow processor, which all machines compute alike."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)
    return transformers.pipeline(
        "image-classification",
        model=str(folder),
        image_processor=processor,
        device="cpu",
        dtype=torch.float32,
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("family", FAMILIES)
def test_image_classification_equals_the_pipeline(family: str, engine: str, made: Get) -> None:
    """Labels, order and scores, for two hundred images (forty on OpenVINO), in all their forms."""
    model, bundle = made(family)
    pipeline, ours = pipeline_for(model), er.load(bundle, variant=engine)
    images = pictured(200 if engine == ENGINES[-1] else 40)
    agreement.same(pipeline(images), ours(images, batch_size=7))
    for image in images[:6]:
        wanted = pipeline(image, top_k=2)
        agreement.same(wanted, ours(image, top_k=2))
        agreement.same(wanted, ours(as_bytes(image), top_k=2))
        agreement.same(wanted, ours(np.asarray(image), top_k=2))
        how = {"function_to_apply": "sigmoid"}
        agreement.same(pipeline(image, **how), ours(image, **how))


PROCESSED: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", {}),
    "vit, bicubic": ("ViT", {"resample": 3, "image_mean": [0.48, 0.45, 0.4]}),
    "deit": ("DeiT", {}),
    "beit": ("Beit", {}),
    "clip": ("CLIP", {}),
    "dinov2": ("Bit", {"size": {"shortest_edge": 256}, "do_center_crop": True}),
    "convnext": ("ConvNext", {"size": {"shortest_edge": 224}}),
    "convnext, large": ("ConvNext", {"size": {"shortest_edge": 384}}),
    "mobilenet_v1": ("MobileNetV1", {}),
    "mobilenet_v2": ("MobileNetV2", {}),
    "mobilevit": ("MobileViT", {}),
    "siglip": ("Siglip", {}),
    "not scaled": ("ViT", {"do_rescale": False, "do_normalize": False}),
}


@pytest.mark.parametrize("name", PROCESSED)
def test_pixels_are_those_of_the_model_s_own_processor(name: str, tmp_path: Path) -> None:
    """Every rule of resizing, cropping, scaling and order: equal to a hundred-thousandth."""
    kind, changes = PROCESSED[name]
    processor = getattr(transformers, f"{kind}ImageProcessor")(**changes)
    processor.save_pretrained(tmp_path)
    reader = ImageReader(pictures.facts(tmp_path))
    for image in pictured(12):
        wanted = processor(image, return_tensors="np")["pixel_values"][0]
        assert np.abs(reader.read(image) - wanted).max() <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_is_built_and_proves_itself(family: str, made: Get, tmp_path: Path) -> None:
    """Every variant of a board passes its golden images, and decides as the float model does."""
    model, _ = made(family)
    bundle = er.Bundle.open(_build(model, tmp_path, "-t", "cpu-x86-64"))
    for variant in bundle.manifest.variants:
        selftest(bundle, er.load(bundle.path, variant=variant.name, any_device=True))
        assert variant.measured["agreement"] > 0.8


def test_a_folder_of_classes_is_evaluated(made: Get, tmp_path: Path) -> None:
    """Bundle and torch model have one accuracy; a table that names files gives it too."""
    model, bundle = made("vit")
    ours = er.load(bundle)
    rows = []
    for number, image in enumerate(pictured(20)):
        best = ours(image)[0]["label"] if number % 4 else "dog"
        (tmp_path / "images" / best).mkdir(parents=True, exist_ok=True)
        path = tmp_path / "images" / best / f"{number}.png"
        image.save(path)
        rows.append({"text": str(path), "label": best})
    table = tmp_path / "rows.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    figures = []
    for source, data in (
        (bundle, tmp_path / "images"),
        (model, tmp_path / "images"),
        (bundle, table),
    ):
        arguments = ["evaluate", str(source), "--data", str(data), "--json"]
        done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        figures.append(json.loads(done.stdout)["figures"])
    assert figures[0] == pytest.approx(figures[1])
    assert figures[0] == pytest.approx(figures[2])
    assert 0.7 < figures[0]["accuracy"] < 1


def test_a_recipe_calibrates_on_a_folder_and_holds_quality(made: Get, tmp_path: Path) -> None:
    """The table has the teacher's accuracy and that of each variant."""
    model, bundle = made("mobilenet_v2")
    ours = er.load(bundle)
    for number, image in enumerate(pictured(24)):
        place = tmp_path / "images" / ours(image)[0]["label"]
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number}.png")
    recipe = tmp_path / "edgepack.toml"
    recipe.write_text(
        f'[model]\nsource = "{model}"\nname = "m"\n[data]\ntrain = "images"\n'
        'evaluation = "images"\n[budget]\nquality_drop = 90\n'
    )
    arguments = ["build", str(recipe), "-t", "cpu-x86-64", "-o", str(tmp_path / "dist")]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "teacher, PyTorch" in done.output
    assert "read calibration images" in done.output


def test_frames_are_answered_one_by_one(made: Get) -> None:
    """An iterator, such as a camera, is read as its answers are asked for."""
    ours = er.load(made("vit")[1])
    seen = []

    def camera() -> Any:
        for number, image in enumerate(pictured(5)):
            seen.append(number)
            yield np.asarray(image)

    answers = ours(camera())
    assert seen == []
    first = next(answers)
    assert seen == [0]
    assert [first, *answers] == ours(pictured(5))


def saved(image: Any, **how: Any) -> bytes:
    """Return the bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, **{"format": "PNG", **how})
    return stream.getvalue()


def test_unusual_pictures_are_read_as_pillow_reads_them(made: Get) -> None:
    """One pixel, CMYK, grey, alpha, palettes, sixteen bits, animations, turned by the camera."""
    ours, plain = er.load(made("vit")[1]), drawn(3)
    grey = np.asarray(plain.convert("L"))
    assert ours(grey) == ours(Image.fromarray(grey))
    for mode, kind in (("CMYK", "JPEG"), ("L", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("1", "PNG")):
        picture = plain.convert(mode)
        stored = saved(picture, format=kind, **({"quality": 100} if kind == "JPEG" else {}))
        assert ours(stored) == ours(Image.open(io.BytesIO(stored)).convert("RGB"))
    assert len(ours(Image.new("RGB", (1, 1)))) == 5
    deep = Image.fromarray(grey.astype(np.uint16) << 8)
    assert len(ours(saved(deep))) == 5
    moving = saved(plain, format="GIF", save_all=True, append_images=[drawn(4)])
    assert ours(moving) == ours(Image.open(io.BytesIO(moving)).convert("RGB"))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    turned = saved(plain, exif=exif)
    assert open_image(turned).size == plain.size[::-1]
    assert ours(turned) == ours(plain.transpose(Image.Transpose.ROTATE_270))


def bomb(side: int) -> bytes:
    """Return a PNG whose header claims `side` × `side` pixels."""
    data = bytearray(saved(Image.new("RGB", (8, 8))))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (saved(drawn(1), format="JPEG")[:900], "is not an image that can be read"),
        (b"", "is not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "is not an image that can be read"),
        (bomb(20_000), "more than 64,000,000 pixels; make it smaller"),
        (bomb(9_000), "the image has 9000×9000 pixels, more than 64,000,000"),  # Pillow only warns
        ("no/such/file.png", "no/such/file.png is not an image that can be read"),
        ("https://example.org/a.png", "is an address"),
        (7, "expected an image"),
        (np.zeros((4, 4), np.float32), "an array must be uint8"),
        (np.zeros((4, 4, 2), np.uint8), "an array must be uint8"),
    ],
)
def test_what_is_not_an_image_is_one_clear_error(item: Any, message: str, made: Get) -> None:
    """It names what was given and what is taken."""
    with pytest.raises(InputError, match=message):
        er.load(made("vit")[1])(item)


def test_without_pillow_the_error_says_what_to_install(
    made: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device for texts does not need it."""
    ours = er.load(made("vit")[1])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DeviceError, match=r"pip install 'edgepack-runtime\[vision\]'"):
        ours("a.png")


def test_a_model_without_its_processor_is_refused(made: Get, tmp_path: Path) -> None:
    """Before anything is exported."""
    folder = _make("vit", tmp_path / "model")
    (folder / pictures.FILE).unlink()
    done = CliRunner().invoke(main, ["build", str(folder), "-t", "native"])
    assert done.exit_code == 2
    assert "it has no preprocessor_config.json" in done.output
    assert made("vit")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_real_mobilenet_sees_wolves(engine: str, data: Path, tmp_path: Path) -> None:
    """MobileNetV2 of ImageNet, in float and int8: the right class for a photograph."""
    source = data / "models/mobilenet_v2_int8_tflite"
    folder = tmp_path / "model"
    done = subprocess.run(
        [sys.executable, str(source / "make_hf.py"), str(folder)], check=False, capture_output=True
    )
    if done.returncode:
        pytest.skip("make_hf.py needs more packages than the tests install")
    bundle = _build(folder, tmp_path, "-t", "cpu-x86-64")
    for variant in er.Bundle.open(bundle).manifest.variants:
        if variant.engine == engine:
            found = er.load(bundle, variant=variant.name, any_device=True)(source / "wolves.jpg")
            wanted = pipeline_for(folder)(str(source / "wolves.jpg"))
            assert found[0]["label"] == wanted[0]["label"]


def test_the_target_of_this_machine_is_known() -> None:
    """What `-t native` means here has a CPU variant of each engine."""
    assert {spec.engine for spec in find_target("native").variants} >= {"onnxruntime"}

"""Sounds: samples as the model's own extractor makes them, and answers as the pipelines give."""

from __future__ import annotations

import io
import json
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agreement
import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner

import edgepack_runtime as er
from edgepack.cli import main
from edgepack.data.sounds import made as made_sound
from edgepack.data.sounds import write_wav
from edgepack_runtime import DeviceError, InputError
from edgepack_runtime.bundle.description import Audio
from edgepack_runtime.inputs.audio import AudioReader
from edgepack_runtime.model.selftest import selftest

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers' pipelines and exporters
ENGINES = ["openvino-float32", "onnxruntime-float32"]
LABELS = ["yes", "no", "left", "right", "stop"]
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUM'"]
RATE = 16_000
Get = Callable[[str], tuple[Path, Path]]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [16] * 3,
    "conv_kernel": [10, 8, 8],
    "conv_stride": [5, 8, 8],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_feat_extract_layers": 3,
}


def _make(kind: str, folder: Path) -> Path:
    """Write a small model, `family task`, with random weights."""
    family, head = kind.split()
    sizes = dict(SIZES)
    if head == "ctc":
        sizes |= {"vocab_size": len(LETTERS), "pad_token_id": 0}
    else:
        sizes |= {
            "id2label": dict(enumerate(LABELS)),
            "classifier_proj_size": 16,
            "label2id": {name: i for i, name in enumerate(LABELS)},
        }
    config = transformers.AutoConfig.for_model(family, **sizes)
    torch.manual_seed(2)
    name = "CTC" if head == "ctc" else "AudioClassification"
    model = getattr(transformers, f"AutoModelFor{name}").from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else None
    folder.mkdir(parents=True, exist_ok=True)
    if head == "ctc":
        vocabulary = folder / "vocab.json"
        vocabulary.write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
        transformers.Wav2Vec2CTCTokenizer(str(vocabulary)).save_pretrained(folder)
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=family != "hubert").save_pretrained(folder)
    return folder


def _build(model: Path, out: Path, *more: str) -> Path:
    arguments = ["build", str(model), "--name", "m", "-o", str(out), *more]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return next(out.glob("*.epk"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Get:
    """Return a function from a kind to its model and its float bundle, made once."""
    found: dict[str, tuple[Path, Path]] = {}

    def get(kind: str) -> tuple[Path, Path]:
        if kind not in found:
            folder = tmp_path_factory.mktemp("sounds")
            model = _make(kind, folder / "model")
            found[kind] = model, _build(model, folder, "-t", "native", "--precision", "float32")
        return found[kind]

    return get


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["wav2vec2 words", "hubert words"])
def test_audio_classification_equals_the_pipeline(kind: str, engine: str, made: Get) -> None:
    """Labels, order and scores of two hundred sounds, of fewer on OpenVINO."""
    model, bundle = made(kind)
    pipeline = transformers.pipeline("audio-classification", model=str(model), device="cpu")
    ours = er.load(bundle, variant=engine)
    sounds = [made_sound(seed) for seed in range(200 if engine == ENGINES[-1] else 30)]
    for sound, found in zip(sounds, ours(sounds), strict=True):
        agreement.same(pipeline(sound.copy()), found)
    how = {"top_k": 2, "function_to_apply": "sigmoid"}
    agreement.same(pipeline(sounds[0].copy(), **how), ours(sounds[0], **how))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["wav2vec2 ctc", "hubert ctc"])
def test_speech_recognition_equals_the_pipeline(kind: str, engine: str, made: Get) -> None:
    """The text, each letter and word with its time, and long sounds in chunks."""
    model, bundle = made(kind)
    pipeline = transformers.pipeline("automatic-speech-recognition", model=str(model), device="cpu")
    ours = er.load(bundle, variant=engine)
    sounds = [made_sound(seed) for seed in range(40)]
    texts = []
    for sound in sounds:
        wanted = pipeline(sound.copy())
        agreement.same(wanted, ours(sound))
        texts.append(wanted["text"])
    assert len(set(texts)) > 20
    ways: list[dict[str, Any]] = [{"return_timestamps": kind} for kind in ("char", "word")]
    for how in ways:
        agreement.same(pipeline(sounds[0].copy(), **how), ours(sounds[0], **how))
    long = np.concatenate(sounds[:6])
    ways = [{"chunk_length_s": 2}, {"chunk_length_s": 3.0, "stride_length_s": 0.5}]
    for how in ways:
        agreement.same(pipeline(long.copy(), **how), ours(long, **how))


def test_samples_are_those_of_the_model_s_own_extractor() -> None:
    """With and without normalization: bit for bit."""
    for normalize in (True, False):
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize)
        reader = AudioReader(Audio(RATE, normalize=normalize))
        for seed in range(20):
            sound = made_sound(seed)
            wanted = extractor(sound, sampling_rate=RATE, return_tensors="np")["input_values"][0]
            assert np.array_equal(reader.features(reader.read(sound)), wanted)


@pytest.mark.parametrize("kind", ["wav2vec2 words", "wav2vec2 ctc"])
def test_int8_is_built_and_proves_itself(kind: str, made: Get, tmp_path: Path) -> None:
    """Every variant of a board passes its golden sounds."""
    model, _ = made(kind)
    bundle = er.Bundle.open(_build(model, tmp_path, "-t", "cpu-x86-64"))
    assert bundle.manifest.variants
    for variant in bundle.manifest.variants:
        selftest(bundle, er.load(bundle.path, variant=variant.name, any_device=True))


def wav(samples: Any, *, width: int = 2, channels: int = 1, rate: int = RATE) -> bytes:
    """Return a WAV file of samples [samples] or [samples, channels] from -1 to 1."""
    stream = io.BytesIO()
    whole = np.clip(np.asarray(samples, dtype=np.float64), -1, 1)
    with wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        if width == 1:
            raw = (whole * 127 + 128).astype(np.uint8).tobytes()
        elif width == 3:
            raw = (
                (whole * (2**31 - 256)).astype("<i4").reshape(-1, 1).view(np.uint8)[:, 1:].tobytes()
            )
        else:
            raw = (whole * (2 ** (8 * width - 1) - 1)).astype(f"<i{width}").tobytes()
        file.writeframes(raw)
    return stream.getvalue()


def test_sounds_come_in_many_forms(tmp_path: Path) -> None:
    """8 to 32 bits, stereo, int16 arrays, other rates and formats: one sound."""
    soundfile = pytest.importorskip("soundfile")
    reader, sound = AudioReader(Audio(RATE)), made_sound(4)
    for width, near in ((1, 0.02), (2, 1e-4), (3, 1e-5), (4, 1e-5)):
        assert np.abs(reader.read(wav(sound, width=width)) - sound).max() < near
    both = np.stack([sound, np.zeros_like(sound)], axis=1)
    assert np.abs(reader.read(wav(both, channels=2)) - sound / 2).max() < 1e-4
    assert np.abs(reader.read((sound * 32767).astype(np.int16)) - sound).max() < 1e-4
    path = tmp_path / "a.flac"
    soundfile.write(path, sound, RATE)
    assert np.abs(reader.read(path) - sound).max() < 1e-4
    time = np.arange(16_000) / 8_000
    slow, fast = (np.sin(2 * np.pi * 300 * t) for t in (time, np.arange(32_000) / RATE))
    found = reader.read({"raw": slow, "sampling_rate": 8_000})
    assert len(found) == 32_000
    assert np.abs(found - fast)[200:-200].max() < 0.01


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (b"", "is not a sound that can be read"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "is not a sound that can be read"),
        (np.zeros(0, np.float32), "the sound has no samples"),
        (wav([]), "the sound has no samples"),
        (np.array([0.0, np.nan] * 400, np.float32), "samples that are not numbers"),
        (np.zeros(20, np.float32), "20 samples at 16000 Hz, but the model needs at least 325"),
        (np.zeros(800, np.uint8), "numbers from -1 to 1, or int16"),
        ("no/such.wav", "no/such.wav: No such file"),
        ("https://example.org/a.wav", "is an address"),
        (3, "expected a sound"),
        ({"raw": np.zeros(800)}, 'is {"raw": samples, "sampling_rate": Hz}'),
        ({"raw": np.zeros(800), "sampling_rate": 0}, "must be from 1000 to 400000 Hz"),
    ],
)
def test_what_is_not_a_sound_is_one_clear_error(item: Any, message: str, made: Get) -> None:
    """It names what was given and what is taken."""
    with pytest.raises(InputError, match=message.replace("{", r"\{").replace("}", r"\}")):
        er.load(made("wav2vec2 words")[1])(item)


def test_silent_and_clipped_sounds_have_an_answer(made: Get) -> None:
    """Nothing is divided by zero."""
    ours = er.load(made("wav2vec2 words")[1])
    for sound in (
        np.zeros(RATE, np.float32),
        np.ones(RATE, np.float32),
        np.full(400, 1e-9, np.float32),
    ):
        assert all(np.isfinite(row["score"]) for row in ours(sound))


def test_without_the_extra_only_plain_wav_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A device that records its own sounds needs neither soundfile nor soxr."""
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "a.flac"
    soundfile.write(path, made_sound(1), RATE)
    for name in ("soundfile", "soxr"):
        monkeypatch.setitem(sys.modules, name, None)
    reader = AudioReader(Audio(RATE))
    assert len(reader.read(wav(made_sound(1)))) == len(made_sound(1))
    for item in (path, wav(made_sound(1), rate=8_000)):
        with pytest.raises(DeviceError, match=r"pip install 'edgepack-runtime\[audio\]'"):
            reader.read(item)


def test_quality_is_measured_on_folders_and_tables(made: Get, tmp_path: Path) -> None:
    """Words by a folder for each, speech by a table of what was said; torch and bundle alike."""
    words, speech = made("wav2vec2 words"), made("wav2vec2 ctc")
    hear, write = er.load(words[1]), er.load(speech[1])
    rows = []
    for seed in range(12):
        sound = made_sound(seed)
        label = hear(sound)[0]["label"] if seed % 4 else "stop"
        path = tmp_path / "words" / label / f"{seed}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, sound)
        said = write(str(path))["text"] or "A"
        rows.append({"text": str(path), "label": said if seed % 3 else f"{said} AND MORE"})
    table = tmp_path / "speech.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    for (model, bundle), data, figure in (
        (words, tmp_path / "words", "accuracy"),
        (speech, table, "word_accuracy"),
    ):
        figures = []
        for source in (model, bundle):
            arguments = ["evaluate", str(source), "--data", str(data), "--json"]
            done = CliRunner().invoke(main, arguments, catch_exceptions=False)
            assert done.exit_code == 0, done.output
            figures.append(json.loads(done.stdout)["figures"])
        assert figures[0] == pytest.approx(figures[1], abs=1e-6)
        assert 0.2 < figures[0][figure] < 1


def test_real_speech_is_read_as_the_pipeline_reads_it(made: Get, data: Path) -> None:
    """Recordings of digits at 8 kHz, resampled; and speech of 16 kHz in WAV, FLAC and MP3."""
    soxr = pytest.importorskip("soxr")
    soundfile = pytest.importorskip("soundfile")
    model, bundle = made("wav2vec2 ctc")
    pipeline = transformers.pipeline("automatic-speech-recognition", model=str(model), device="cpu")
    ours = er.load(bundle, variant="onnxruntime-float32")
    digits = sorted((data / "data/fsdd_wav/train").glob("*.wav"))[::12][:200]
    speech = sorted((data / "data/speech_samples").glob("*.[wfm][alp][vc3a]*"))
    for path in [*digits, *speech]:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = samples.mean(axis=1)
        same_rate = mono if rate == RATE else soxr.resample(mono, rate, RATE, quality="HQ")
        assert ours(path) == pipeline(same_rate.astype(np.float32))

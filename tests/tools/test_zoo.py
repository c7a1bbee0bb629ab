"""The encoder and the speech network: the committed folders, and how their data are drawn."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import onnx
import onnxruntime
import pytest

from jptq import ir
from jptq.engine import trace
from tools.bench import networks
from tools.zoo import folder as folders
from tools.zoo.encoder import data as reviews
from tools.zoo.encoder import network as encoder
from tools.zoo.encoder import train as train_encoder
from tools.zoo.graph import Network, with_weights
from tools.zoo.speech import data as words
from tools.zoo.speech import network as speech
from tools.zoo.speech import train as train_speech

Feeds = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A committed network and the code that it was made by."""

    name: str
    built: Network
    output: str
    classes: int
    samples: int

    @property
    def folder(self) -> Path:
        return folders.NETWORKS / self.name

    @property
    def model(self) -> onnx.ModelProto:
        return onnx.load(self.folder / "model.onnx")

    @property
    def evaluator(self) -> ModuleType:
        return folders.load_evaluator(self.folder / "evaluate.py")

    @property
    def calibration(self) -> list[Feeds]:
        folder = self.folder / "calibration_data"
        names = sorted(path.name for path in folder.iterdir())
        count = len(list((folder / names[0]).glob("*.npy")))
        return [
            {name: np.load(folder / name / f"{i:03d}.npy") for name in names} for i in range(count)
        ]

    def evaluation(self) -> Feeds:
        return dict(np.load(self.folder / "evaluation.npz", allow_pickle=False))


CASES = {
    case.name: case
    for case in (
        Case(
            name="encoder",
            built=encoder.build(),
            output="logits",
            classes=reviews.CLASSES,
            samples=train_encoder.CALIBRATION_SAMPLES,
        ),
        Case(
            name="speech",
            built=speech.build(),
            output="probabilities",
            classes=len(words.WORDS),
            samples=train_speech.CALIBRATION_SAMPLES,
        ),
    )
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def run(model: onnx.ModelProto, feeds: Feeds) -> Feeds:
    """Run a model in onnxruntime."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def inner(case: Case, tensor: str, count: int) -> np.ndarray:
    """Return an inner tensor of the committed network, for some calibration samples together."""
    model = case.model
    model.graph.output.append(onnx.ValueInfoProto(name=tensor))
    samples = case.calibration[:count]
    return run(model, {k: np.concatenate([s[k] for s in samples]) for k in samples[0]})[tensor]


# --- the committed folders -----------------------------------------------------------------------


def test_onnxruntime_gives_the_stored_scores(case: Case) -> None:
    stored = json.loads((case.folder / "scores.json").read_text())
    model = case.model
    # Half a sample of 400: processors round differently, no review or word may change sides.
    found = case.evaluator.evaluate(lambda feeds: run(model, feeds))
    assert found == pytest.approx(stored["float"], abs=1e-3)
    assert stored["samples"] == len(case.evaluation()["labels"]) == 400


def test_it_is_good_but_not_perfect(case: Case) -> None:
    scores = json.loads((case.folder / "scores.json").read_text())["float"]
    assert 0.92 < scores["accuracy"] < 0.98
    assert 0.9 < scores["probability"] < scores["accuracy"]


def test_the_traced_forward_agrees_with_onnxruntime(case: Case) -> None:
    samples = case.calibration
    together = {name: np.concatenate([s[name] for s in samples]) for name in samples[0]}
    forward = trace(ir.load(case.folder / "model.onnx"), together)
    expected = run(case.model, together)[case.output]
    np.testing.assert_allclose(
        forward(together)[case.output], expected, rtol=0, atol=1e-4 * np.abs(expected).max()
    )


def test_the_committed_graph_is_the_one_that_is_built(case: Case) -> None:
    committed, built = case.model, case.built.proto
    assert list(committed.graph.node) == list(built.graph.node)
    assert list(committed.graph.input) == list(built.graph.input)
    values = {tensor.name: tensor for tensor in committed.graph.initializer}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in built.graph.initializer}
    assert {name: tuple(tensor.dims) for name, tensor in values.items()} == shapes
    # Everything but what is trained or measured is as built.
    measured = set(speech.build(training=True).statistics)
    for tensor in built.graph.initializer:
        if tensor.name not in {*case.built.trained, *measured}:
            assert values[tensor.name] == tensor


def test_model_and_data_are_small(case: Case) -> None:
    assert (case.folder / "model.onnx").stat().st_size < 300_000
    assert (case.folder / "evaluation.npz").stat().st_size < 400_000


def test_samples_have_the_shape_of_the_inputs(case: Case) -> None:
    samples = case.calibration
    assert len(samples) == case.samples
    inputs = {entry.name: entry for entry in ir.load(case.folder / "model.onnx").inputs}
    for sample in samples:
        assert set(sample) == set(inputs)
        for name, value in sample.items():
            shape = inputs[name].shape
            assert shape is not None
            assert value.shape == (1, *shape[1:])


def test_a_network_that_knows_the_labels_scores_one(case: Case) -> None:
    labels = iter(case.evaluation()["labels"])

    def knowing(feeds: Feeds) -> Feeds:
        found = np.zeros((len(next(iter(feeds.values()))), case.classes))
        for row in found:
            row[next(labels)] = 1
        return {case.output: found if case.output == "probabilities" else 1000 * found}

    assert case.evaluator.evaluate(knowing) == {"accuracy": 1, "probability": 1}


def test_a_network_that_cannot_tell_scores_a_share(case: Case) -> None:
    def blind(feeds: Feeds) -> Feeds:
        count = len(next(iter(feeds.values())))
        return {case.output: np.full((count, case.classes), 1 / case.classes)}

    share = 1 / case.classes
    assert case.evaluator.evaluate(blind)["probability"] == pytest.approx(share)


def test_what_is_not_a_number_is_wrong(case: Case) -> None:
    def broken(feeds: Feeds) -> Feeds:
        count = len(next(iter(feeds.values())))
        return {case.output: np.full((count, case.classes), np.nan)}

    assert case.evaluator.evaluate(broken) == {"accuracy": 0, "probability": 0}


def test_benchmarks_find_both() -> None:
    assert [n.name for n in networks.find([folders.NETWORKS])] == sorted(CASES)


# --- what is difficult about them ----------------------------------------------------------------


def test_the_mask_of_the_encoder_is_the_lowest_float_where_there_is_padding() -> None:
    penalty = inner(CASES["encoder"], "/Mul_output_0", 48)[:, 0, 0]
    masks = np.concatenate([s["attention_mask"] for s in CASES["encoder"].calibration])
    np.testing.assert_array_equal(penalty == np.finfo(np.float32).min, masks == 0)
    np.testing.assert_array_equal(penalty == 0, masks == 1)
    assert 0.1 < np.mean(masks == 0) < 0.6


def test_padding_changes_nothing() -> None:
    found = reviews.reviews(9, 50)
    other = np.where(found.attention_mask == 1, found.input_ids, reviews.VOCABULARY - 1)
    model = CASES["encoder"].model
    feeds = {"attention_mask": found.attention_mask}
    np.testing.assert_allclose(
        run(model, {**feeds, "input_ids": other})["logits"],
        run(model, {**feeds, "input_ids": found.input_ids})["logits"],
        atol=1e-4,
    )


def test_the_power_spectrum_has_a_heavy_tail() -> None:
    power = inner(CASES["speech"], "/frontend/Add_output_0", 32)
    assert power.max() > 1000 * np.median(power)
    assert power.max() > 10 * np.quantile(power, 0.99)


def test_the_front_end_is_a_fourier_transform() -> None:
    frames = words.sounds(9, 4).frames
    real, imaginary = speech.transform()
    expected = np.fft.rfft(frames)
    np.testing.assert_allclose(frames @ real, expected.real, atol=1e-4)
    np.testing.assert_allclose(frames @ imaginary, expected.imag, atol=1e-4)


def test_bands_overlap_by_half_and_cover_the_spectrum() -> None:
    bands = speech.mel()
    assert bands.shape == (words.FRAME // 2 + 1, speech.BANDS)
    assert (bands >= 0).all()
    assert (bands.max(0) > 0.1).all()
    assert (np.count_nonzero(bands, axis=1) <= 2).all()


# --- data ----------------------------------------------------------------------------------------


def test_the_stored_reviews_are_those_of_their_series() -> None:
    stored = CASES["encoder"].evaluation()
    drawn = reviews.reviews(train_encoder.EVALUATION, train_encoder.EVALUATION_SAMPLES)
    np.testing.assert_array_equal(stored["input_ids"], drawn.input_ids)
    np.testing.assert_array_equal(stored["labels"], drawn.labels)


def test_the_stored_words_are_those_of_their_series() -> None:
    stored = CASES["speech"].evaluation()
    drawn = words.sounds(train_speech.EVALUATION, 20)
    # Sines of two libraries differ in the last bit, and a level with them.
    assert np.abs(stored["levels"][:20].astype(int) - drawn.levels).max() <= 1
    np.testing.assert_allclose(stored["gains"][:20], drawn.gains, rtol=1e-6)
    np.testing.assert_array_equal(stored["labels"][:20], drawn.labels)


def test_the_evaluator_cuts_frames_as_the_calibration_samples_are_cut() -> None:
    case = CASES["speech"]
    drawn = words.sounds(train_speech.CALIBRATION, 2)
    framed = case.evaluator.framed(drawn.levels, drawn.gains)
    np.testing.assert_array_equal(framed, drawn.frames)
    stored = np.concatenate([sample["frames"] for sample in case.calibration[:2]])
    np.testing.assert_allclose(stored, framed, atol=drawn.gains.max() * 1.01)


def test_no_review_of_one_series_is_in_another() -> None:
    seeds = (train_encoder.TRAINING, train_encoder.CALIBRATION, train_encoder.EVALUATION)
    seen = [{row.tobytes() for row in reviews.reviews(seed, 500).input_ids} for seed in seeds]
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_no_word_of_one_series_is_in_another() -> None:
    seeds = (train_speech.TRAINING, train_speech.CALIBRATION, train_speech.EVALUATION)
    seen = [{row.tobytes() for row in words.sounds(seed, 30).levels} for seed in seeds]
    assert len(set.union(*seen)) == 90


def test_a_grade_is_what_reading_word_by_word_gives() -> None:
    drawn = reviews.reviews(5, 300)
    strengths = {}
    for topic in range(4):
        for i, strength in enumerate((-2, -1, 1, 2)):
            for synonym in range(3):
                strengths[14 + (topic * 4 + i) * 3 + synonym] = (topic, strength)
    for ids, mask, label in zip(drawn.input_ids, drawn.attention_mask, drawn.labels, strict=True):
        length = int(mask.sum())
        assert (ids[0], ids[2], ids[length - 1]) == (reviews.CLS, reviews.SEP, reviews.SEP)
        assert (ids[length:] == reviews.PAD).all()
        total, before = 0, -1
        for token in ids[3 : length - 1]:
            topic, strength = strengths.get(int(token), (-1, 0))
            if topic == ids[1] - 3:
                total += strength * (-1 if 7 <= before < 11 else 2 if 11 <= before < 14 else 1)
            before = int(token)
        grade = 0 if total <= -3 else 1 if total < 0 else 2 if total == 0 else 3 if total < 3 else 4
        assert grade == label


def test_words_are_as_loud_as_their_gain_and_all_occur() -> None:
    drawn = words.sounds(6, 200)
    assert set(drawn.labels) == set(range(len(words.WORDS)))
    assert (np.abs(drawn.levels).max(1) == words.LEVELS).all()
    loudness = 20 * np.log10(drawn.gains * words.LEVELS)
    assert loudness.max() <= 0
    assert -20 <= loudness.min() < -15


# --- training ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_few_steps_teach_the_speech_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_speech, "BATCH", 16)
    monkeypatch.setattr(train_speech, "EVALUATION_SAMPLES", 100)
    sounds = words.sounds(train_speech.TRAINING, 400)
    with jax.numpy_dtype_promotion("standard"):  # optax itself promotes
        weights = train_speech.fit(sounds, 100)
    scores = train_speech.write(tmp_path / "speech", weights)
    assert scores["accuracy"] > 0.2  # 0.1 by guessing
    assert sorted(path.name for path in (tmp_path / "speech").iterdir()) == [
        "calibration_data",
        "evaluate.py",
        "evaluation.npz",
        "model.onnx",
        "scores.json",
    ]
    assert "entropy" in capsys.readouterr().out


@pytest.mark.slow
def test_a_few_steps_teach_the_encoder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train_encoder, "BATCH", 16)
    monkeypatch.setattr(train_encoder, "REVIEWS", 16)
    with jax.numpy_dtype_promotion("standard"):
        weights = train_encoder.fit(60)
    lines = capsys.readouterr().out.splitlines()
    assert "accuracy" in lines[-1]
    drawn = reviews.reviews(train_encoder.TRAINING, 16)
    feeds = {"input_ids": drawn.input_ids, "attention_mask": drawn.attention_mask}
    model = with_weights(encoder.build().proto, weights)
    right = run(model, feeds)["logits"].argmax(1) == drawn.labels
    assert right.mean() > 0.8  # learnt by heart

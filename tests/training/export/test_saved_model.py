"""The export contract, checked on SavedModels as TensorFlow Serving would run them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import prediction_log_pb2

from digitforge_client.contract import MAX_ROWS, Field, Signature, balanced_labels, image_hashes, row_seeds
from digitforge_client.errors import DataError, InvalidInputError
from digitforge_training.data import Dataset, load
from digitforge_training.export.card import generator_id
from digitforge_training.export.saved_model import export, read_card
from digitforge_training.export.warmup import WARMUP_FILE
from digitforge_training.gan.latents import latents_of
from digitforge_training.runs.folder import read_run

SHIPPED = Path(__file__).parents[3] / "serving" / "models" / "digits"
LABELS, SEEDS = balanced_labels(512, 10), row_seeds(5, 512)

Images = npt.NDArray[np.uint8]


def _newest(base: Path) -> Path:
    return max((path for path in base.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name))


@pytest.fixture(scope="module", params=["tiny", "shipped"])
def version(request: pytest.FixtureRequest, exported_model: Path) -> Path:
    """The export of a tiny generator, and the shipped one."""
    return exported_model / "1" if request.param == "tiny" else _newest(SHIPPED)


@pytest.fixture(scope="module")
def signatures(version: Path) -> Any:
    return tf.saved_model.load(str(version)).signatures


def _sample(signatures: Any, labels: npt.ArrayLike, seeds: npt.ArrayLike) -> tuple[Images, npt.NDArray[np.bool_]]:
    reply = signatures[Signature.SAMPLE](
        labels=tf.constant(np.asarray(labels, np.int64)), seeds=tf.constant(np.asarray(seeds, np.int64))
    )
    return reply[Field.IMAGES].numpy(), reply[Field.VALID].numpy()


def assert_same_digits(one: Images, other: Images) -> None:
    """At most one gray level apart on any pixel, and equal on at least 99.9 % of pixels."""
    difference = np.abs(one.astype(int) - other.astype(int))
    assert difference.max() <= 1
    assert (difference == 0).mean() >= 0.999


def test_every_signature_has_the_names_types_and_shapes_of_the_contract(signatures: Any, version: Path) -> None:
    size = read_card(version)["latent_size"]
    images, valid = ((None, 28, 28, 1), tf.uint8), ((None,), tf.bool)
    rows, strings = ((None,), tf.int64), ((None,), tf.string)
    expected = {
        "serving_default": ({"labels": rows, "seeds": rows}, {"images": images, "valid": valid}),
        "png": ({"labels": rows, "seeds": rows}, {"image_bytes": strings, "valid": valid}),
        "latents": ({"seeds": rows}, {"latents": ((None, size), tf.float32)}),
        "from_latents": (
            {"class_weights": ((None, 10), tf.float32), "latents": ((None, size), tf.float32)},
            {"images": images},
        ),
        "card": ({"rows": rows}, {"card": strings}),
        "seen": ({"hashes": rows}, {"seen": valid}),
    }
    actual = {
        name: tuple(
            {key: (tuple(spec.shape), spec.dtype) for key, spec in specs.items()}
            for specs in (function.structured_input_signature[1], function.structured_outputs)
        )
        for name, function in signatures.items()
    }
    assert actual == expected


def test_an_address_gives_the_same_image_alone_in_a_batch_and_at_any_position(signatures: Any) -> None:
    batch, valid = _sample(signatures, LABELS, SEEDS)
    assert valid.all()
    alone = np.concatenate([_sample(signatures, LABELS[i : i + 1], SEEDS[i : i + 1])[0] for i in range(0, 512, 8)])
    assert_same_digits(alone, batch[::8])
    order = np.random.default_rng(0).permutation(512)
    assert_same_digits(_sample(signatures, LABELS[order], SEEDS[order])[0], batch[order])


def test_an_address_gives_the_same_image_through_a_tf1_session(signatures: Any, version: Path) -> None:
    """TensorFlow Serving runs a SavedModel this way."""
    tf1 = tf.compat.v1
    with tf1.Session(graph=tf.Graph()) as session:
        meta = tf1.saved_model.load(session, ["serve"], str(version))
        signature = meta.signature_def[Signature.SAMPLE]
        images = session.run(
            signature.outputs[Field.IMAGES].name,
            {signature.inputs[Field.LABELS].name: LABELS, signature.inputs[Field.SEEDS].name: SEEDS},
        )
    assert_same_digits(images, _sample(signatures, LABELS, SEEDS)[0])


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_address_gives_the_same_image_under_tensorflow_2_19_1(
    signatures: Any, version: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """TensorFlow Serving may be older than the exporter. The environment is created once and kept."""
    environment = Path(__file__).parents[3] / ".venvs" / "tensorflow-2.19.1"
    python = environment / "bin" / "python"
    if not (environment / "ready").exists():
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "tensorflow==2.19.1"], check=True)
        (environment / "ready").touch()
    out = tmp_path_factory.mktemp("old") / "images.npz"
    code = (
        "import sys, numpy as np, tensorflow as tf\n"
        "assert tf.__version__ == '2.19.1', tf.__version__\n"
        "data = np.load(sys.argv[2])\n"
        "signatures = tf.saved_model.load(sys.argv[1]).signatures\n"
        "reply = signatures['serving_default'](labels=data['labels'], seeds=data['seeds'])\n"
        "np.savez(sys.argv[2], images=reply['images'].numpy(), names=sorted(signatures))"
    )
    np.savez(out, labels=LABELS, seeds=SEEDS)
    subprocess.run([python, "-c", code, str(version), str(out)], check=True)
    with np.load(out) as reply:
        assert_same_digits(reply["images"], _sample(signatures, LABELS, SEEDS)[0])
        assert list(reply["names"]) == sorted(signatures)


@pytest.mark.parametrize("bad", [-1, 10, 2**62, -(2**63)])
def test_a_label_outside_the_classes_blanks_its_own_row_and_no_other(signatures: Any, bad: int) -> None:
    labels = LABELS[:16].copy()
    labels[5] = bad
    images, valid = _sample(signatures, labels, SEEDS[:16])
    assert valid.tolist() == [i != 5 for i in range(16)]
    assert not images[5].any()
    others = np.arange(16) != 5
    assert_same_digits(images[others], _sample(signatures, LABELS[:16], SEEDS[:16])[0][others])


def test_png_files_hold_the_same_images(signatures: Any) -> None:
    reply = signatures[Signature.PNG](labels=tf.constant(LABELS[:12]), seeds=tf.constant(SEEDS[:12]))
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in reply[Field.IMAGE_BYTES].numpy()])
    assert_same_digits(decoded[..., None], _sample(signatures, LABELS[:12], SEEDS[:12])[0])


def test_latents_and_class_weights_lead_to_the_same_images(signatures: Any) -> None:
    latents = signatures[Signature.LATENTS](seeds=tf.constant(SEEDS))[Field.LATENTS]
    np.testing.assert_allclose(latents, latents_of(tf.constant(SEEDS), latents.shape[1], "normal"), atol=2e-6)
    weights = tf.one_hot(LABELS, 10)
    images = signatures[Signature.FROM_LATENTS](class_weights=weights, latents=latents)[Field.IMAGES].numpy()
    assert_same_digits(images, _sample(signatures, LABELS, SEEDS)[0])


def test_more_rows_than_the_limit_are_refused_and_exactly_the_limit_is_served(signatures: Any) -> None:
    assert len(_sample(signatures, np.zeros(MAX_ROWS), np.arange(MAX_ROWS))[0]) == MAX_ROWS
    with pytest.raises(tf.errors.InvalidArgumentError, match="at most 1024 rows"):
        _sample(signatures, np.zeros(MAX_ROWS + 1), np.arange(MAX_ROWS + 1))


def test_the_card_is_the_same_in_every_row_and_names_the_generator(exported_model: Path, trained_run: Path) -> None:
    loaded = tf.saved_model.load(str(exported_model / "1"))
    cards = loaded.signatures[Signature.CARD](rows=tf.zeros([3], tf.int64))[Field.CARD].numpy()
    assert len(set(cards)) == 1
    card, run = json.loads(cards[0]), read_run(trained_run)
    fitted = {"size": None, "fit": "crop", "channels": None, "transpose": False}
    assert card["training_data"] == {**run.training_data, "fitted": fitted}
    assert card["recipe_config"] == run.recipe.as_dict()
    assert (card["image_shape"], card["max_rows"]) == ([28, 28, 1], MAX_ROWS)
    assert card["class_names"] == [str(k) for k in range(10)]
    assert card["expansion"] == {"factor": 1.0, "judge": None}
    weights = [variable.numpy() for variable in loaded.weights]
    assert card["generator_id"] == generator_id(card, weights)
    assert generator_id({**card, "seed": 1}, weights) != card["generator_id"]
    assert generator_id(card, [weights[0] + 1, *weights[1:]]) != card["generator_id"]


def test_the_generator_knows_which_images_it_has_seen(exported_model: Path, digits: Dataset) -> None:
    seen = tf.saved_model.load(str(exported_model / "1")).signatures[Signature.SEEN]
    held_out = load("digits", split="test")
    hashes = image_hashes(digits.images)
    assert seen(hashes=tf.constant(hashes[:1000]))[Field.SEEN].numpy().all()
    fresh = image_hashes(held_out.images)
    expected = np.isin(fresh, hashes)
    np.testing.assert_array_equal(seen(hashes=tf.constant(fresh[:1000]))[Field.SEEN], expected[:1000])
    ends = tf.constant([-(2**63), 2**63 - 1, 0], tf.int64)
    assert not seen(hashes=ends)[Field.SEEN].numpy().any()


def test_warm_up_requests_are_records_that_the_export_can_answer(version: Path, signatures: Any) -> None:
    answered = set()
    for record in tf.data.TFRecordDataset(str(version / WARMUP_FILE)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        assert request.model_spec.name == "digits"
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        signatures[request.model_spec.signature_name](**inputs)
        answered.add(request.model_spec.signature_name)
    assert answered == set(signatures)


def test_a_new_export_takes_the_next_number_and_leaves_the_others_alone(
    trained_run: Path, digits: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / str(2**63)).mkdir()  # too large for a version number
    (tmp_path / ".version.0a1b2c3d.tmp").mkdir()  # a kill may leave one behind
    assert export(trained_run, digits, to=tmp_path) == tmp_path / "8"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7", "8", str(2**63), "notes"]
    assert not list((tmp_path / "7").iterdir())


def test_the_same_run_exported_twice_is_the_same_generator(
    exported_model: Path, trained_run: Path, digits: Dataset, tmp_path: Path
) -> None:
    again = export(trained_run, digits, to=tmp_path)
    assert read_card(again)["generator_id"] == read_card(exported_model / "1")["generator_id"]


def test_metrics_given_at_export_stand_on_the_card(trained_run: Path, digits: Dataset, tmp_path: Path) -> None:
    metrics = {"label_agreement": {"value": 0.99, "n": 10_000}}
    assert read_card(export(trained_run, digits, to=tmp_path, metrics=metrics))["metrics"] == metrics


def test_another_data_set_than_the_trained_one_is_refused(trained_run: Path, digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="give the same --data"):
        export(trained_run, digits.subset(np.arange(100)), to=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_clear_error(trained_run: Path, digits: Dataset, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=r"choose an(other| existing) folder"):
        export(trained_run, digits, to=tmp_path)


def test_a_folder_below_a_file_is_one_clear_error(trained_run: Path, digits: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another folder"):
        export(trained_run, digits, to=tmp_path / "file" / "digits")


def test_a_run_without_a_checkpoint_says_what_to_do(trained_run: Path, digits: Dataset, tmp_path: Path) -> None:
    shutil.copy(trained_run / "recipe.json", tmp_path)
    with pytest.raises(DataError, match="no checkpoint yet"):
        export(tmp_path, digits, to=tmp_path / "models")


def test_a_folder_that_is_no_export_has_no_card(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a generator"):
        read_card(tmp_path)

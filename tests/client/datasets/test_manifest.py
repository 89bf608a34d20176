"""Plans of very large data sets, and the manifests that record them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from shards import PLAN

from digitforge_client import DataError, InvalidInputError
from digitforge_client.contract import ROWS_PER_SEED, SEEDS
from digitforge_client.datasets.manifest import FORMATS, NAME, Manifest, Plan
from digitforge_client.testing import FakeTransport

CARD = FakeTransport(class_names=()).card
plans = st.builds(
    lambda scaling, **fields: scaling | fields,
    n=st.integers(1, 10**10),
    seed=st.integers(0, SEEDS - 1),
    start=st.integers(0, ROWS_PER_SEED),
    rows_per_shard=st.integers(1, 1_000_000),
    label=st.none() | st.integers(0, 9),
    scaling=st.just({}) | st.dictionaries(st.sampled_from(("truncation", "expansion")), st.floats(0.1, 3), max_size=1),
    format=st.sampled_from(FORMATS),
)


@given(plans)
def test_shards_share_no_address_and_skip_none(fields: dict[str, Any]) -> None:
    try:
        plan = Plan(**fields)
    except InvalidInputError:
        assert fields["start"] + fields["n"] > ROWS_PER_SEED or -(-fields["n"] // fields["rows_per_shard"]) > 10_000, (
            fields
        )
        assume(False)
    shards = plan.shards()
    assert len({shard.file for shard in shards}) == len(shards)
    assert all(one.start + one.n == other.start for one, other in itertools.pairwise(shards))
    assert (shards[0].start, shards[-1].start + shards[-1].n) == (plan.start, plan.start + plan.n)
    assert all(0 < shard.n <= plan.rows_per_shard for shard in shards)


@given(plans.filter(lambda fields: fields["n"] <= 50 * fields["rows_per_shard"]), st.sets(st.integers(0, 49)))
def test_a_manifest_survives_a_round_trip(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], finished: set[int]
) -> None:
    assume(fields["start"] + fields["n"] <= ROWS_PER_SEED)
    folder = tmp_path_factory.mktemp("manifest")
    manifest = Manifest.new(Plan(**fields), CARD)
    for number in finished & set(range(len(manifest.shards))):
        manifest = manifest.with_shard(number, replace(manifest.shards[number], bytes=number, sha256="0" * 64))
    manifest.save(folder)
    assert Manifest.load(folder) == manifest
    described = json.loads((folder / NAME).read_text())["shards"]
    pairs = [each["row_seeds"] for each in described]
    assert all(one[1] + 1 == other[0] for one, other in itertools.pairwise(pairs))
    assert pairs[0][0] == fields["seed"] * 2**32 + fields["start"]


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("seed"),
        lambda fields: fields.update(n=0),
        lambda fields: fields.update(n="many"),
        lambda fields: fields.update(generator_id="f" * 16),
        lambda fields: fields.update(manifest_version=3),
        lambda fields: fields.update(start=71),
        lambda fields: fields["shards"].pop(),
        lambda fields: fields["shards"].append(fields["shards"][0]),
        lambda fields: fields["shards"][1].update(start=70),
        lambda fields: fields["shards"][1].update(file="../elsewhere"),
        lambda fields: fields["shards"][1].pop("sha256"),
        lambda fields: fields.update(shards=None),
        lambda fields: fields.update(card=[]),
    ],
)
def test_a_changed_manifest_is_rejected(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    Manifest.new(PLAN, CARD).save(tmp_path)
    fields = json.loads((tmp_path / NAME).read_text())
    change(fields)
    (tmp_path / NAME).write_text(json.dumps(fields))
    with pytest.raises(DataError, match=NAME):
        Manifest.load(tmp_path)


def test_a_manifest_of_version_1_can_be_read(tmp_path: Path) -> None:
    manifest = Manifest.new(PLAN, CARD)
    manifest.save(tmp_path)
    fields = json.loads((tmp_path / NAME).read_text())
    del fields["expansion"]
    (tmp_path / NAME).write_text(json.dumps(fields | {"manifest_version": 1}))
    assert Manifest.load(tmp_path) == manifest


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"no JSON", b"\xff\xfe"])
def test_other_content_is_not_a_manifest(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(DataError, match="generate"):
        Manifest.load(tmp_path)
    (tmp_path / NAME).write_bytes(text)
    with pytest.raises(DataError, match=NAME):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"n": 0}, "n is 0"),
        ({"n": 10, "start": -1}, "start is -1"),
        ({"n": 10, "seed": 2**21}, "seed is"),
        ({"n": 2**32, "start": 1}, "use another seed"),
        ({"n": 10, "format": "idx"}, "npz, tfrecord, parquet"),
        ({"n": 10, "rows_per_shard": 0}, "rows_per_shard"),
        ({"n": 10, "rows_per_shard": 1_000_001}, "built in memory"),
        ({"n": 10_001, "rows_per_shard": 1}, "10001 shards"),
        ({"n": 10, "truncation": -1}, "truncation"),
        ({"n": 10, "truncation": 1, "expansion": 1}, "only one of them"),
        ({"n": 10, "label": "seven"}, "label"),
    ],
)
def test_an_impossible_plan_is_rejected(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        Plan(**({"seed": 0} | fields))

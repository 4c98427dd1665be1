"""Records on disk: round trip, resuming, refusing, and nothing lost."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest

import oipjax
from oipjax import records
from oipjax.study import Study

KEY = jax.random.key(3)
OPTIONS = {"draws": 64, "keep": 12, "steps": 8, "restarts": 2, "tile": 4}
ARRAYS = [
    field.name for field in dataclasses.fields(oipjax.Atlas) if field.name not in ("model", "layer")
]


@pytest.fixture
def study(tiny) -> Study:
    return Study(KEY, tiny, "conv2", **OPTIONS)


class Interrupted(Exception):
    pass


def interrupt_after(count: int):
    """A progress report that ends the run when it has been called ``count`` times in the ascent."""
    calls = []

    def progress(phase, done, total):
        calls.append(phase)
        if calls.count("ascent") == count:
            raise Interrupted

    return progress


def test_round_trip(study, tmp_path):
    made = records.make(tmp_path / "out", study)
    assert made.fresh
    read, manifest = records.read(tmp_path / "out")
    for name in ARRAYS:
        np.testing.assert_allclose(
            getattr(read, name), getattr(made.atlas, name), rtol=1e-8
        ) if name == "responded_fraction" else np.testing.assert_array_equal(
            getattr(read, name), getattr(made.atlas, name)
        )
    assert manifest == made.manifest
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "maps.csv",
        "oips.npz",
    ]


def test_it_loads_with_plain_numpy_and_json(study, tiny, tmp_path):
    records.make(tmp_path, study)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["schema"] == 2 and manifest["counts"] == {
        "maps": 6,
        "found": 5,
        "dead": 1,
        "unresolved": 0,
    }
    assert (
        manifest["command"] == "atlas"
        and manifest["seed"] == 3
        and manifest["image_space"] == "Standardised"
    )
    assert manifest["model"] == {
        "name": "tiny",
        "parameters_sha256": manifest["config"]["parameters_sha256"],
    }
    assert manifest["config"]["tile"] == 4 and manifest["config"]["layer"] == "conv2"
    assert {"jax", "numpy", "python", "oipjax"} <= set(manifest["versions"])
    assert manifest["device"]["platform"] == "cpu" and set(manifest["timing_s"]) == {
        "bounds",
        "survey",
        "ascent",
    }
    assert len(manifest["config"]["parameters_sha256"]) == 64
    with np.load(tmp_path / "oips.npz", allow_pickle=False) as file:
        dtypes = {name: str(file[name].dtype) for name in file.files}
        shapes = {name: file[name].shape for name in file.files}
        again = np.asarray(tiny.apply(tiny.params, file["images"][:, 0])["conv2"]).mean((1, 2))
        np.testing.assert_allclose(
            again[np.arange(6), np.arange(6)], file["scores"][:, 0], rtol=1e-5
        )
    assert (
        dtypes["maps"] == "int32"
        and dtypes["status"] == "uint8"
        and dtypes["run_status"] == "uint8"
    )
    assert dtypes["start_index"] == "int64" and dtypes["images"] == "float32"
    assert shapes["images"] == (6, 12, 8, 8, 1) and shapes["trace"] == (6, 12, 7)
    with (tmp_path / "maps.csv").open() as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == list(records.COLUMNS) and [row["status"] for row in table[:2]] == [
        "dead",
        "found",
    ]


@pytest.mark.parametrize("count", [3, 17, 18])
def test_an_interrupted_run_goes_on_and_ends_in_the_same_bits(study, tmp_path, count):
    straight = records.make(tmp_path / "straight", study).atlas
    with pytest.raises(Interrupted):
        records.make(tmp_path / "broken", study, progress=interrupt_after(count))
    parts = sorted(p.name for p in (tmp_path / "broken" / "parts").iterdir())
    assert parts[-1] == "survey-00000.npz" and not (tmp_path / "broken" / "manifest.json").exists()
    resumed = records.make(tmp_path / "broken", study)
    assert (
        "survey" not in resumed.manifest["timing_s"]
        and resumed.fresh
        and resumed.manifest["resumed"]
    )
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(resumed.atlas, name), getattr(straight, name))
    first, second = ((tmp_path / n / "oips.npz").read_bytes() for n in ("straight", "broken"))
    assert first == second
    assert not (tmp_path / "broken" / "parts").exists()


def test_a_damaged_part_is_computed_again(study, tmp_path):
    straight = records.make(tmp_path / "straight", study).atlas
    with pytest.raises(Interrupted):
        records.make(tmp_path / "broken", study, progress=interrupt_after(18))
    part = tmp_path / "broken" / "parts" / "ascent-00000.npz"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    resumed = records.make(tmp_path / "broken", study).atlas
    np.testing.assert_array_equal(resumed.images, straight.images)


def test_damage_of_one_bit_is_named_or_harmless(study, tmp_path):
    atlas = records.make(tmp_path / "r", study).atlas
    file, rng = tmp_path / "r" / "oips.npz", np.random.default_rng(0)
    original = file.read_bytes()
    directory = original.rfind(b"PK\x01\x02") - 3000  # names and headers, where zip has no checksum
    for position in [
        *rng.integers(len(original), size=60),
        *rng.integers(directory, len(original), size=200),
    ]:
        content = bytearray(original)
        content[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        try:
            read = records.read(tmp_path / "r")[0]
        except ValueError as error:
            assert "damaged" in str(error)
        else:
            assert all(
                np.array_equal(getattr(read, n), getattr(atlas, n), equal_nan=True)
                for n in records.ARRAY_NAMES
            )
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="damaged"):
        records.read(tmp_path / "r")


def test_numpy_indices_are_indices(tiny):
    study = Study(KEY, tiny, "conv2", maps=np.array([3, 5]))  # pyright: ignore[reportArgumentType]
    assert study.maps == (3, 5) and records.describe(study)["maps"] == [3, 5]


def test_asked_again_it_says_where_the_record_lies(study, tmp_path):
    records.make(tmp_path, study)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    again = records.make(tmp_path, study)
    assert not again.fresh and {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


def test_another_run_is_refused_with_the_difference_and_replaced_only_on_demand(
    study, tiny, tmp_path
):
    records.make(tmp_path, study)
    (tmp_path / "notes.txt").write_text("mine")
    other = dataclasses.replace(study, steps=9, key=jax.random.key(4))
    with pytest.raises(
        ValueError, match=r"--overwrite replaces it(.|\n)*steps: 8 there, 9 asked for"
    ):
        records.make(tmp_path, other)
    assert records.read_manifest(tmp_path)["config"]["steps"] == 8
    assert records.make(tmp_path, other, overwrite=True).manifest["config"]["steps"] == 9
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_half_finished_other_run_is_refused_too(study, tmp_path):
    with pytest.raises(Interrupted):
        records.make(tmp_path, study, progress=interrupt_after(18))
    with pytest.raises(ValueError, match="draws: 64 there, 65 asked for"):
        records.make(tmp_path, dataclasses.replace(study, draws=65))
    assert (tmp_path / "parts" / "survey-00000.npz").exists()


def test_places_that_are_no_record_are_left_alone(study, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"no record and not empty \(thesis.tex\)"):
        records.make(tmp_path, study, overwrite=True)
    with pytest.raises(ValueError, match="is a file"):
        records.make(tmp_path / "thesis.tex", study)
    assert (tmp_path / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["parts/bolt.step", "oips.npz", "maps.csv", "manifest.json"])
def test_what_others_made_is_not_a_record(study, tmp_path, name, overwrite):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("{}")
    with pytest.raises(ValueError, match="is no record and not empty"):
        records.make(tmp_path, study, overwrite=overwrite)
    assert file.read_text() == "{}"


def test_a_place_where_another_process_has_just_begun_is_a_place_for_a_record(study, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "plan.json.0123456789ab.tmp").write_text("{")
    assert records.make(tmp_path, study).fresh


def test_parts_made_by_other_versions_are_refused_and_replaced_on_demand(study, tmp_path):
    with pytest.raises(Interrupted):
        records.make(tmp_path, study, progress=interrupt_after(18))
    plan = tmp_path / "parts" / "plan.json"
    plan.write_text(plan.read_text().replace('"jax": "', '"jax": "9'))
    with pytest.raises(ValueError, match=r"versions.jax: "):
        records.make(tmp_path, study)
    made = records.make(tmp_path, study, overwrite=True)
    assert made.fresh and not made.manifest["resumed"]


def test_strangers_in_a_record_survive_everything(study, tmp_path):
    with pytest.raises(Interrupted):
        records.make(tmp_path, study, progress=interrupt_after(18))
    (tmp_path / "parts" / "bolt.step").write_text("x")
    records.make(tmp_path, study)
    records.make(tmp_path, dataclasses.replace(study, steps=9), overwrite=True)
    assert (tmp_path / "parts" / "bolt.step").read_text() == "x"


@pytest.mark.parametrize("name", ["manifest.json", "oips.npz", "maps.csv"])
def test_damaged_records_are_named(study, tmp_path, name):
    records.make(tmp_path, study)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:40])
    with pytest.raises(ValueError, match="damaged|cannot be read"):
        records.read(tmp_path)


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"manifest.json: cannot be read"):
        records.read(tmp_path)

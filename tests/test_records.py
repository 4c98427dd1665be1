"""Records on disk: round trip, resuming, refusing, and nothing lost."""

import csv
import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oipjax
from oipjax import records
from oipjax.model import Model
from oipjax.search import Ascent, ascend
from oipjax.storage import StateFile, exclusive, npz, surroundings
from oipjax.study import Study, plan_study

KEY = jax.random.key(3)
OPTIONS = {"draws": 64, "keep": 12, "steps": 8, "restarts": 2, "tile": 4}
ARRAYS = [
    field.name for field in dataclasses.fields(oipjax.Atlas) if field.name not in ("model", "layer")
]


RECORD = ["manifest.json", "maps.csv", "oips.npz"]


@pytest.fixture
def study(tiny) -> Study:
    return plan_study(KEY, tiny, "conv2", **OPTIONS)


def names_in(folder: Path) -> list[str]:
    """The files of a folder, without the lock."""
    return sorted(file.name for file in folder.iterdir() if file.name != ".lock")


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names_in(folder)}


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
    assert names_in(tmp_path / "out") == RECORD


def test_it_loads_with_plain_numpy_and_json(study, tiny, tmp_path):
    records.make(tmp_path, study)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["schema"] == 3 and manifest["counts"] == {
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
        "identity": manifest["config"]["model_identity"],
    }
    config = manifest["config"]
    own = {field.name for field in dataclasses.fields(oipjax.AtlasConfig)} - {"ascent", "exemplars"}
    inner = {field.name for field in dataclasses.fields(oipjax.AscentConfig)}
    assert own | inner | {"model_identity", "key", "command", "exemplars_sha256"} <= set(config)
    assert (config["maps"], config["screen"], config["keep_images"]) == ([*range(6)], 2, 12)
    assert manifest["precision"] == config["precision"] == "float32"
    assert manifest["jax_default_matmul_precision"] == config["jax_default_matmul_precision"]
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
    study = plan_study(KEY, tiny, "conv2", maps=np.array([3, 5]))
    assert study.maps == (3, 5) and records.describe(study)["maps"] == [3, 5]


def test_asked_again_it_says_where_the_record_lies(study, tmp_path):
    records.make(tmp_path, study)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names_in(tmp_path)}
    again = records.make(tmp_path, study)
    after = {name: (tmp_path / name).stat().st_mtime_ns for name in names_in(tmp_path)}
    assert not again.fresh and after == before


def test_another_run_is_refused_with_the_difference_and_replaced_only_on_demand(
    study, tiny, tmp_path
):
    records.make(tmp_path, study)
    (tmp_path / "notes.txt").write_text("mine")
    other = plan_study(jax.random.key(4), tiny, "conv2", config=study.config, steps=9)
    with pytest.raises(
        ValueError, match=r"--overwrite replaces it(.|\n)*steps: 8 there, 9 asked for"
    ):
        records.make(tmp_path, other)
    assert records.read_manifest(tmp_path)["config"]["steps"] == 8
    assert records.make(tmp_path, other, overwrite=True).manifest["config"]["steps"] == 9
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_half_finished_other_run_is_refused_too(study, tiny, tmp_path):
    with pytest.raises(Interrupted):
        records.make(tmp_path, study, progress=interrupt_after(18))
    with pytest.raises(ValueError, match="draws: 64 there, 65 asked for"):
        records.make(tmp_path, plan_study(KEY, tiny, "conv2", config=study.config, draws=65))
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


def test_strangers_in_a_record_survive_everything(study, tiny, tmp_path):
    with pytest.raises(Interrupted):
        records.make(tmp_path, study, progress=interrupt_after(18))
    (tmp_path / "parts" / "bolt.step").write_text("x")
    records.make(tmp_path, study)
    other = plan_study(KEY, tiny, "conv2", config=study.config, steps=9)
    records.make(tmp_path, other, overwrite=True)
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


# --- the state of a folder


def test_the_state_of_a_folder_is_a_value(study, tmp_path):
    folder = tmp_path / "out"
    assert records.state_of(folder) == records.Empty()
    folder.mkdir()
    (folder / ".lock").touch()
    assert records.state_of(folder) == records.Empty()
    with pytest.raises(Interrupted):
        records.make(folder, study, progress=interrupt_after(3))
    begun = records.state_of(folder)
    assert isinstance(begun, records.Begun) and begun.plan["config"] == records.describe(study)
    made = records.make(folder, study)
    assert records.state_of(folder) == records.Finished(made.manifest)
    (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes()[:2000])
    assert records.state_of(folder) == records.Damaged("manifest.json is damaged")
    (folder / "manifest.json").write_text("{}")
    assert isinstance(records.state_of(folder), records.Foreign)


def test_a_damaged_record_is_refused_and_replaced_on_demand(study, tmp_path):
    whole = contents(records.make(tmp_path, study).folder)
    (tmp_path / "manifest.json").write_bytes(whole["manifest.json"][:2000])
    with pytest.raises(ValueError, match="manifest.json is damaged; --overwrite replaces it"):
        records.make(tmp_path, study)
    records.make(tmp_path, study, overwrite=True)
    assert (tmp_path / "oips.npz").read_bytes() == whole["oips.npz"]


def test_whoever_asks_while_a_run_goes_on_is_told_and_does_no_harm(study, tiny, tmp_path):
    straight = contents(records.make(tmp_path / "straight", study).folder)
    other = plan_study(KEY, tiny, "conv2", config=study.config, steps=9)
    refused = []

    def interfere(phase, done, total):
        if phase == "ascent" and not refused:
            before = sorted((tmp_path / "out").rglob("*"))
            for options in ({"overwrite": True}, {"overwrite": False}):
                with pytest.raises(ValueError, match="another process is at work"):
                    records.make(tmp_path / "out", other, **options)
            with pytest.raises(ValueError, match="another process is at work"):
                records.is_finished(tmp_path / "out", records.describe(other), overwrite=True)
            assert sorted((tmp_path / "out").rglob("*")) == before
            refused.append(phase)

    records.make(tmp_path / "out", study, progress=interfere)
    assert refused and (tmp_path / "out" / ".lock").exists()
    made = contents(tmp_path / "out")
    assert made["oips.npz"] == straight["oips.npz"] and made["maps.csv"] == straight["maps.csv"]


def test_a_part_of_another_plan_is_absent(study, tiny, tmp_path):
    """The parts of two runs have the same names and shapes; each names its plan."""
    other = plan_study(KEY, tiny, "conv2", config=study.config, criterion=1e-3)
    for folder, plan in (("a", study), ("b", other)):
        with pytest.raises(Interrupted):
            records.make(tmp_path / folder, plan, progress=interrupt_after(18))
    parts = tmp_path / "a" / "parts"
    for file in (tmp_path / "b" / "parts").glob("*.npz"):
        shutil.copy(file, parts / file.name)
    made = records.make(tmp_path / "a", study)
    assert not made.manifest["resumed"]
    straight = records.make(tmp_path / "straight", study)
    np.testing.assert_array_equal(made.atlas.images, straight.atlas.images)


def test_a_folder_that_cannot_be_written_can_be_read(study, tmp_path, monkeypatch):
    records.make(tmp_path, study)

    def refuse(*_, **__):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr("oipjax.storage.locks.FileLock.acquire", refuse)
    assert not records.make(tmp_path, study).fresh


# --- other networks, versions and settings


def test_another_network_of_the_same_name_is_refused_in_one_sentence(study, tiny, tmp_path):
    records.make(tmp_path, study)
    params = jax.tree.map(lambda array: array * 2, tiny.params)
    trained = dataclasses.replace(tiny, params=params)
    message = (
        "holds the record of another network that is named tiny too (other parameters); "
        "--overwrite replaces it, or choose another --out"
    )
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        records.make(tmp_path, plan_study(KEY, trained, "conv2", **OPTIONS))
    assert "sha256" not in str(caught.value) and "\n" not in str(caught.value)


def test_weights_in_the_program_are_part_of_the_network(tmp_path):
    weights = jax.random.normal(KEY, (3, 3, 1, 4))
    options = {"draws": 64, "steps": 8, "bounds": "none"}

    def study_of(scale: float) -> Study:
        def apply(params, x):
            del params
            dimensions = ("NHWC", "HWIO", "NHWC")
            out = jax.lax.conv_general_dilated(
                x, jnp.float32(scale) * weights, (1, 1), "SAME", dimension_numbers=dimensions
            )
            return {"c": out}

        model = Model("mine", apply, None, ("c",), (8, 8, 1))
        return plan_study(KEY, model, "c", **options)

    assert records.make(tmp_path, study_of(1.0)).fresh
    assert not records.make(tmp_path, study_of(1.0)).fresh
    with pytest.raises(
        ValueError, match="another program, input shape, normalisation or version of JAX"
    ):
        records.make(tmp_path, study_of(-5.0))


def test_the_identity_of_a_model_decides(study, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Model, "identity", property(lambda model: "a" * 64))
    records.make(tmp_path, study)
    assert records.read_manifest(tmp_path)["model"]["identity"] == "a" * 64
    monkeypatch.setattr(Model, "identity", property(lambda model: "b" * 64))
    with pytest.raises(
        ValueError, match="another program, input shape, normalisation or version of JAX"
    ):
        records.make(tmp_path, study)


def test_a_record_of_another_matmul_precision_is_not_reused(study, tmp_path):
    records.make(tmp_path, study)
    with jax.default_matmul_precision("tensorfloat32"):
        with pytest.raises(ValueError, match="jax_default_matmul_precision: .*tensorfloat32"):
            records.make(tmp_path, study)
        made = records.make(tmp_path, study, overwrite=True)
    assert made.manifest["jax_default_matmul_precision"] == "tensorfloat32"
    assert made.manifest["precision"] == "float32", "of the ascents' steps"


def test_manifests_name_the_commit_and_no_run_is_refused_for_it(study, tmp_path):
    root = Path(__file__).parents[1]
    expected = "unknown"
    if (root / ".git").exists():
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        expected = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    assert surroundings()["commit"].removesuffix("-dirty") == expected
    with pytest.raises(Interrupted):
        records.make(tmp_path, study, progress=interrupt_after(18))
    plan = tmp_path / "parts" / "plan.json"
    facts = json.loads(plan.read_text())
    plan.write_text(json.dumps({**facts, "commit": "0" * 40}))
    assert records.make(tmp_path, study).manifest["resumed"]
    manifest = records.read_manifest(tmp_path)
    assert manifest["commit"] == surroundings()["commit"]
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "commit": "0" * 40}))
    assert not records.make(tmp_path, study).fresh


def test_a_state_of_another_commit_is_resumed(tmp_path):
    tree = {"x": np.arange(3.0)}
    StateFile(tmp_path / "s.npz", {"steps": 3, "commit": "a"}).write(tree, 7)
    found = StateFile(tmp_path / "s.npz", {"steps": 3, "commit": "b"}).read(tree)
    assert found is not None and found[1] == 7
    with pytest.raises(ValueError, match="steps: 3 there, 4 asked for"):
        StateFile(tmp_path / "s.npz", {"steps": 4, "commit": "a"}).read(tree)


def as_schema_2(folder: Path, arrays_name: str) -> None:
    """Rewrite a record with the names of schema 2."""
    old = {"responses": "reactions"}
    with np.load(folder / arrays_name) as file:
        arrays = {old.get(name, name): file[name] for name in file.files if name != "sha256"}
    (folder / arrays_name).write_bytes(npz(arrays))
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in ("model_identity", "jax_default_matmul_precision", "reports", "record_images"):
        manifest["config"].pop(name, None)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "schema": 2}))
    table = folder / "maps.csv"
    if table.exists():
        text = table.read_text().replace("responded_fraction", "reacted_fraction")
        text = text.replace("pre-activation", "waking").replace(",survey,", ",band,")
        table.write_text(text)


def test_records_of_schema_2_are_read_and_not_taken_for_new_ones(study, tmp_path):
    made = records.make(tmp_path, study).atlas
    as_schema_2(tmp_path, "oips.npz")
    assert "reacted_fraction" in (tmp_path / "maps.csv").read_text()
    atlas, manifest = records.read(tmp_path)
    assert manifest["schema"] == 2
    np.testing.assert_array_equal(atlas.responses, made.responses)
    np.testing.assert_allclose(atlas.responded_fraction, made.responded_fraction, rtol=1e-8)
    strips = [name.replace("survey", "strips") for name in made.found_by]
    assert atlas.found_by.tolist() == strips
    earlier = "a record of an earlier version of oipjax (schema 2, this one writes 3); --overwrite"
    with pytest.raises(ValueError, match=re.escape(earlier)):
        records.make(tmp_path, study)
    assert records.make(tmp_path, study, overwrite=True).manifest["schema"] == 3


def run_of(tiny: Model) -> Ascent:
    target, start = np.array([3]), np.array([0])
    return ascend(KEY, tiny, oipjax.Map("conv2"), target, start, steps=8, tile=4)


def test_one_run_is_written_and_read(tiny, tmp_path):
    run = run_of(tiny)
    space = oipjax.space_for(tiny)
    facts = {"layer": "conv2", "map": 3, "tile": 4}
    config = records.describe_run("oip", tiny, KEY, space, oipjax.Momentum(), **facts)
    assert not records.is_finished(tmp_path / "oip", config, overwrite=False)
    records.write_run(tmp_path / "oip", config, run, {}, start=0)
    assert records.is_finished(tmp_path / "oip", config, overwrite=False)
    np.testing.assert_array_equal(records.read_run(tmp_path / "oip").images, run.images)
    with (tmp_path / "oip" / "oip.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["step"]) for row in table] == run.trace_steps.tolist()
    scores = [np.float32(row["score"]) for row in table]
    np.testing.assert_array_equal(scores, run.trace[0])
    as_schema_2(tmp_path / "oip", "oip.npz")
    np.testing.assert_array_equal(records.read_run(tmp_path / "oip").responses, run.responses)
    with pytest.raises(ValueError, match="earlier version"):
        records.is_finished(tmp_path / "oip", config, overwrite=False)
    assert not records.is_finished(tmp_path / "oip", config, overwrite=True)
    assert records.state_of(tmp_path / "oip") == records.Empty()


def test_one_run_is_not_written_over_another_record(study, tiny, tmp_path):
    records.make(tmp_path, study)
    before = contents(tmp_path)
    facts = {"layer": "conv2", "map": 3, "tile": 4}
    config = records.describe_run("oip", tiny, KEY, study.space, oipjax.Momentum(), **facts)
    with pytest.raises(ValueError, match='command: "atlas" there, "oip" asked for'):
        records.write_run(tmp_path, config, run_of(tiny), {})
    with exclusive(tmp_path), pytest.raises(ValueError, match="another process is at work"):
        records.write_run(tmp_path, config, run_of(tiny), {})
    assert contents(tmp_path) == before

"""Every command on a tiny network, and every kind of bad input: one short message, exit code 2."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import jax
import numpy as np
import pytest

import oipjax
from oipjax.cli import main as cli
from oipjax.networks import checkpoint, cnn
from oipjax.search import INACTIVE, STATUS
from oipjax.training import ReconstructionEpoch

SMALL = ["--draws", "64", "--steps", "8", "--tile", "8"]


@pytest.fixture(autouse=True)
def _own_cache_and_folder(monkeypatch, tmp_path_factory, tmp_path):
    monkeypatch.setattr(cli, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def call(capfd):
    def run(*arguments):
        try:
            code = cli.main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return code, out, err

    return run


def visible(folder: Path) -> list[str]:
    """Names of the files in a folder, without hidden ones such as locks."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def arrays(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "oips.npz") as file:
        return {name: file[name] for name in file.files}


def test_atlas(call, tiny_folder):
    code, out, err = call("atlas", "--checkpoint", tiny_folder, *SMALL)
    assert code == 0 and "found 5 of 6 maps of conv2, 1 proved dead in" in out
    folder = Path("oipjax-out/tiny-conv2")
    assert str(folder / "atlas.png") in out and (folder / "atlas.png").stat().st_size > 10_000
    assert "survey" in err and "ascent" in err and "bounds" not in out
    assert json.loads((folder / "manifest.json").read_text())["config"]["draws"] == 64
    code, out, _ = call("atlas", "--checkpoint", tiny_folder, *SMALL)
    assert code == 0 and "finished before" in out
    code, _, err = call("atlas", "--checkpoint", tiny_folder, *SMALL, "--seed", 1)
    assert code == 2 and "--overwrite" in err and "key.data" in err
    before = arrays(folder)
    assert call("atlas", "--checkpoint", tiny_folder, *SMALL, "--overwrite")[0] == 0
    again = arrays(folder)
    assert all(
        np.array_equal(before[name], again[name], equal_nan=name == "bound") for name in before
    )
    assert call("atlas", "--checkpoint", tiny_folder, *SMALL, "--seed", 1, "--overwrite")[0] == 0
    assert not np.array_equal(before["images"], arrays(folder)["images"])


def test_atlas_with_everything_said(call, tiny_folder):
    code, out, _ = call(
        "atlas",
        "--checkpoint",
        tiny_folder,
        *SMALL,
        "--layer",
        "conv1",
        "--maps",
        "0,2-3",
        "--keep",
        2,
        "--method",
        "classic",
        "--space",
        "box",
        "--recipe",
        "2:1",
        "4:1,8:.5~0.5",
        "--restarts",
        0,
        "--stop",
        "--criterion",
        "1e-3",
        "--format",
        "png",
        "svg",
        "--out",
        "there/patterns",
        "--keep-images",
        1,
        "--screen",
        4,
        "--finish",
        2,
    )
    assert code == 0, out
    assert visible(Path("there/patterns")) == [
        "atlas.png",
        "atlas.svg",
        "manifest.json",
        "maps.csv",
        "oips.npz",
    ]
    found = arrays(Path("there/patterns"))
    assert found["maps"].tolist() == [0, 2, 3] and found["images"].shape == (3, 1, 8, 8, 1)
    manifest = json.loads(Path("there/patterns/manifest.json").read_text())
    config = manifest["config"]
    assert config["method"]["name"] == "Classic" and len(config["space"]["starts"]["recipes"]) == 2
    assert (config["screen"], config["finish"], config["keep_images"]) == (4, 2, 1)
    assert config["precision"] == "float32"


def test_oip(call, tiny_folder):
    common = [
        "oip",
        "--checkpoint",
        tiny_folder,
        "--draws",
        64,
        "--tile",
        8,
        "--steps",
        40,
        "--reports",
        3,
    ]
    code, out, _ = call(*common, "--map", 3)
    assert code == 0 and "map 3 of conv2" in out
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows if row and row[0].isdecimal()] == ["0", "5", "10", "20", "39"]
    folder = Path("oipjax-out/tiny-conv2-map3")
    assert visible(folder) == [
        "manifest.json",
        "oip.csv",
        "oip.npz",
        "oip.png",
    ]
    with np.load(folder / "oip.npz") as file:
        assert file["trace_images"].shape == (1, 5, 8, 8, 1) and file["trace_steps"].tolist() == [
            0,
            5,
            10,
            20,
            39,
        ]
    assert call(*common, "--map", 3)[1].startswith("finished before")
    assert call(*common, "--map", 3, "--format", "svg")[0] == 0 and (folder / "oip.svg").exists()
    code, _, err = call(*common, "--map", 3, "--seed", 4)
    assert code == 2 and "--overwrite" in err
    assert call(*common, "--map", 3, "--seed", 4, "--start", 17, "--overwrite")[0] == 0
    assert json.loads((folder / "manifest.json").read_text())["start"] == 17


def test_oip_leaves_the_parts_of_an_atlas_alone(call, tiny_folder):
    parts = Path("there/parts")
    parts.mkdir(parents=True)
    (parts / "plan.json").write_text('{"config": {"command": "atlas"}}')
    code, _, err = call("oip", "--checkpoint", tiny_folder, "--map", 3, *SMALL, "--out", "there")
    assert code == 2 and "command" in err and not Path("there/manifest.json").exists()


def test_oip_says_when_a_run_is_inactive(call, tiny_folder):
    code, out, _ = call("oip", "--checkpoint", tiny_folder, "--map", 0, *SMALL)
    assert code == 0 and STATUS[INACTIVE] in out and "--method momentum" in out


def test_layers(call, tiny_folder):
    code, out, _ = call("layers", "--checkpoint", tiny_folder)
    assert code == 0 and "conv2_pre" in out and "logits" in out and "tiny: images 8 x 8 x 1" in out
    code, out, _ = call("layers")
    assert code == 0 and "conv3" in out and "128" in out


@pytest.mark.slow
def test_train_on_the_sample_and_use_what_it_made(call):
    with jax.numpy_dtype_promotion("standard"):  # optax is exempt
        code, out, err = call(
            "train",
            "--data",
            "sample",
            "--epochs",
            2,
            "--filters",
            4,
            6,
            "--pools",
            2,
            2,
            "--dense",
            8,
            "--out",
            "net",
            "--name",
            "mine",
            "--learning-rate",
            "3e-3",
            "--seed",
            3,
        )
    assert code == 0 and "of 200 test images right" in out and "epoch   2" in err
    assert {p.name for p in Path("net").iterdir()} == {
        "checkpoint.json",
        "params",
        "curves.png",
        "confusion.png",
    }
    facts = checkpoint.read_facts(Path("net"))
    assert facts["name"] == "mine" and len(facts["training"]["history"]) == 2
    assert facts["training"]["config"]["validation"] == 66
    assert facts["training"]["seed"] == 3 and "seed" not in facts["training"]["config"]
    code, out, _ = call("atlas", "--checkpoint", "net", *SMALL)
    assert code == 0 and "of 6 maps of conv2" in out
    code, _, err = call("train", "--data", "sample", "--out", "net")
    assert code == 2 and "--overwrite" in err


AUTOENCODER = [
    "train",
    "--network",
    "autoencoder",
    "--filters",
    4,
    4,
    "--strides",
    2,
    2,
    "--latent",
    3,
    "--batch",
    16,
]


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of 60 images of two classes, one of them broken."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(60):
        file = tmp_path / "images" / "ab"[number % 2] / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(file)
    (tmp_path / "images" / "a" / "zz.jpg").write_text("x")
    return tmp_path / "images"


@pytest.mark.slow
def test_train_an_autoencoder_on_own_images_and_look_into_it(call, images):
    with jax.numpy_dtype_promotion("standard"):
        code, out, err = call(*AUTOENCODER, "--dataset", images, "--size", 8, 8, "--epochs", 2)
    assert code == 0 and "mean squared error 0." in out and "on 6 test images, epoch" in out
    assert "1 of 61 images cannot be read and are left out" in err and "a/zz.jpg" in err
    folder = Path("oipjax-out/train/my-images-autoencoder")
    assert {p.name for p in folder.iterdir()} == {
        "checkpoint.json",
        "params",
        "curves.png",
        "reconstructions.png",
    }
    facts = checkpoint.read_facts(folder)
    assert (
        facts["architecture"]["config"]["input_shape"] == [8, 8, 3]
        and facts["training"]["config"]["loss"] == "mse"
    )
    assert checkpoint.load_autoencoder(folder).config.latent == 3
    code, out, _ = call("atlas", "--checkpoint", folder, *SMALL)
    assert code == 0 and "of 4 maps of conv2" in out
    code, _, err = call("train", "--dataset", images, "--out", "other", "--crop", 0, 0, 99, 99)
    assert code == 2 and "too small for the crop" in err and len(err.splitlines()[-1]) < 200


@pytest.mark.slow
def test_train_a_classifier_on_own_images(call, images):
    with jax.numpy_dtype_promotion("standard"):
        code, out, _ = call(
            "train",
            "--dataset",
            images,
            "--filters",
            3,
            "--pools",
            2,
            "--dense",
            4,
            "--epochs",
            1,
            "--batch",
            8,
        )
    assert code == 0 and "% of 6 test images right" in out
    facts = checkpoint.read_facts(Path("oipjax-out/train/my-images-cnn"))
    assert facts["classes"] == ["a", "b"] and facts["architecture"]["config"]["input_shape"] == [
        12,
        10,
        3,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupted_training_goes_on(call, monkeypatch, overwrite):
    summary, options = ReconstructionEpoch.summary, ["--data", "sample", "--epochs", 3]
    if overwrite:
        options += ["--overwrite"]

    def interrupt(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt
        return summary(epoch)

    with jax.numpy_dtype_promotion("standard"):
        assert call(*AUTOENCODER, *options, "--out", "straight")[0] == 0
        with monkeypatch.context() as patch:
            patch.setattr(ReconstructionEpoch, "summary", interrupt)
            code, _, err = call(*AUTOENCODER, *options, "--out", "broken")
        assert code == 130 and "the same call goes on from there" in err
        assert [p.name for p in Path("broken").iterdir()] == ["training.npz"]
        if not overwrite:
            code, _, err = call(*AUTOENCODER, *options, "--out", "broken", "--loss", "mse")
            assert code == 2 and 'config.loss: "bce" there, "mse" asked for' in err
            code, _, err = call(*AUTOENCODER, *options, "--out", "broken", "--corrupt", "noise:0.5")
            assert (
                code == 2
                and 'config.corrupt: null there, "Noise(sigma=0.5, clip=True)" asked for' in err
            )
        code, _, err = call(*AUTOENCODER, *options, "--out", "broken")
    assert code == 0 and "goes on after epoch 2" in err and not Path("broken/training.npz").exists()
    for name in ("parameters", "training"):
        one, other = (
            checkpoint.read_facts(Path(folder))[name] for folder in ("straight", "broken")
        )
        assert one == other


@pytest.mark.slow
def test_an_autoencoder_that_undoes_what_is_done_to_images(call, images, monkeypatch):
    def interrupt(epoch):
        raise KeyboardInterrupt

    options = ["--dataset", images, "--size", 16, 16, "--epochs", 1, "--out", "colours"]
    with jax.numpy_dtype_promotion("standard"):
        with monkeypatch.context() as patch:
            patch.setattr(ReconstructionEpoch, "summary", interrupt)
            assert call(*AUTOENCODER, *options, "--corrupt", "grey", "noise:0.1")[0] == 130
        code, _, err = call(*AUTOENCODER, *options, "--corrupt", "grey")
        assert code == 2 and "holds another run" in err and '"Grey()" asked for' in err
        code, out, _ = call(*AUTOENCODER, *options, "--corrupt", "grey", "noise:0.1")
    assert code == 0 and "on 6 corrupted test images" in out
    facts = checkpoint.read_facts(Path("colours"))["training"]
    assert facts["config"]["corrupt"] == "Chain(parts=(Grey(), Noise(sigma=0.1, clip=True)))"
    assert Path("colours/reconstructions.png").exists()


def test_version_and_help(call):
    assert call("--version")[1].startswith("oipjax 0.")
    for command in cli.COMMANDS:
        code, out, _ = call(command, "--help")
        assert code == 0 and f"Example: oipjax {command}" in out and "default:" in out
    code, out, _ = call("--help")
    assert code == 0 and all(f"  {command} " in out for command in cli.COMMANDS)
    code, _, err = call()
    assert code == 2 and "expected a command; there are atlas, oip" in err


def test_flags_are_the_fields_of_the_configurations(call):
    _, out, _ = call("atlas", "--help")
    hidden = {"ascent", "maps", "exemplars", "space", "record_images"}
    for config in (oipjax.AtlasConfig, oipjax.AscentConfig):
        for field in fields(config):
            flag = f"--{field.name.replace('_', '-')} "
            assert field.name in hidden or flag in out, flag
    assert "--record-images" not in out and "--exemplars" not in out and "None" not in out
    words = " ".join(out.replace("│", " ").split())
    assert "auto: a quarter of steps" in words and "(default: auto)" in words
    defaults = {
        (): ("--epochs INT", "(default: 12)", "--pools"),
        ("--network", "autoencoder"): ("--epochs INT", "(default: 10)", "--latent INT"),
        ("--network", "autoencoder", "--dataset", "photos"): ("(default: 32)", "(default: 256)"),
        ("--network", "autoencoder", "--preset", "faces"): ("(default: 32)", "(default: 256)"),
    }
    for arguments, expected in defaults.items():
        code, out, _ = call("train", *arguments, "--help")
        assert code == 0 and all(text in out for text in expected), (arguments, out)


ONLY_WHAT_IS_NEEDED = """
import sys
import oipjax
assert "jax" not in sys.modules
from oipjax.cli import main
for arguments in (["--version"], ["--help"], ["nonsense"]):
    main.main(arguments)
    assert "jax" not in sys.modules, arguments
"""


def test_neither_the_package_nor_its_version_imports_jax(tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "nonsense", "HOME": str(tmp_path)}
    for script in (["-c", ONLY_WHAT_IS_NEEDED], ["-m", "oipjax.cli", "--version"]):
        subprocess.run([sys.executable, *script], env=environment, check=True)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_needs_no_device(command, tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "nonsense", "HOME": str(tmp_path)}
    called = [sys.executable, "-m", "oipjax.cli", command, "--help"]
    out = subprocess.run(called, env=environment, capture_output=True, text=True, check=True).stdout
    assert f"Example: oipjax {command}" in out


@pytest.mark.parametrize("network", ["cnn", "autoencoder"])
def test_a_trained_network_is_not_named_like_one_that_ships(call, network):
    small = AUTOENCODER[3:] if network == "autoencoder" else ["--filters", 2, "--pools", 2]
    with jax.numpy_dtype_promotion("standard"):
        options = ["--data", "sample", "--epochs", 1]
        code, out, err = call("train", "--network", network, *options, *small)
    assert code == 0, err
    folder = Path(f"oipjax-out/train/my-mnist-{network}")
    assert out.strip().endswith(str(folder))
    name = checkpoint.read_facts(folder)["name"]
    assert name == folder.name and name not in checkpoint.shipped()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["atlas", "--layer", "conv9"],
            "no layer 'conv9'; it has conv1_pre, conv1, pool1_pre, pool1",
        ),
        (["atlas", "--maps", "0,6"], "no map of conv2 6: there are 6, counted from 0"),
        (["atlas", "--maps", "x"], "--maps takes all, or indices and ranges"),
        (["atlas", "--maps", "-1"], "--maps takes all, or indices and ranges"),
        (["atlas", "--maps", "5-3"], "names no map"),
        (["atlas", "--draws", "0"], "draws must be between 1"),
        (["atlas", "--draws", "5000000000"], "draws must be between 1"),
        (["atlas", "--steps", "3000000000"], "steps must be below 2**31, got 3000000000"),
        (["atlas", "--maps", "99999999999999999999"], "no map of conv2"),
        (["atlas", "--maps", "0-9999999999"], "no map of conv2 6"),
        (["atlas", "--keep", "0"], "keep must be between 1"),
        (["atlas", "--steps", "-5"], "steps must be at least 1, got -5"),
        (["atlas", "--restarts", "-1"], "restarts must not be negative"),
        (["atlas", "--criterion", "-1"], "criterion is a relative change"),
        (["atlas", "--tile", "0"], "tile must be at least 1"),
        (["atlas", "--seed", "-1"], "--seed must be between 0"),
        (["atlas", "--recipe", "3:0"], "weights must be"),
        (["atlas", "--out", "a-file"], "is a file"),
        (["atlas", "--out", "full"], "no record and not empty"),
        (["atlas", "--method", "newton"], "newton"),
        (["atlas", "--space", "cube"], "cube"),
        (["atlas", "--draws", "many"], "many"),
        (["atlas", "--nonsense"], "nonsense"),
        (["oip", "--map", "6"], "no map of conv2 6"),
        (["oip", "--map", "-1"], "no map of conv2 -1"),
        (["oip"], "--map"),
        (["oip", "--map", "3", "--steps", "0"], "steps must be at least 1"),
        (["oip", "--map", "3", "--start", "-2"], "numbered by integers"),
        (["layers", "--checkpoint", "nowhere"], "no checkpoint there"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_bad_input_gets_one_short_message_and_exit_code_2(call, tiny_folder, arguments, words):
    Path("a-file").write_text("x")
    Path("full").mkdir()
    Path("full/thesis.tex").write_text("x")
    if arguments[0] in ("atlas", "oip"):
        arguments = [*arguments, "--checkpoint", tiny_folder]
    code, out, err = call(*arguments)
    text = " ".join((out + err).split())
    assert code == 2 and words in text and "Traceback" not in text
    if "╭" not in text:
        assert len(err.splitlines()) == 1 and err.startswith("oipjax: ")
    assert not Path("oipjax-out").exists() and Path("a-file").read_text() == "x"


def test_checkpoints_that_cannot_be_used(call, tiny, tiny_folder):
    file = max(
        (tiny_folder / "params").rglob("*"),
        key=lambda path: path.stat().st_size if path.is_file() else 0,
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 16
    file.write_bytes(content)
    code, _, err = call("atlas", "--checkpoint", tiny_folder)
    assert code == 2 and "damaged" in err and len(err.splitlines()) == 1
    bad = jax.tree.map(np.array, tiny.params)
    bad["conv1"]["bias"][0] = np.inf
    folder = checkpoint.save("bad", cnn.model(bad, tiny.apply.config), {})
    code, _, err = call("atlas", "--checkpoint", folder)
    assert (
        code == 2
        and "NaN or infinity in the parameters conv1/bias" in err
        and len(err.splitlines()) == 1
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere"], "no such folder"),
        (["--data", "."], "missing train-images-idx3-ubyte.gz"),
        (["--data", "sample", "--epochs", "0"], "epochs must be at least 1"),
        (["--data", "sample", "--filters", "4"], "one pool per convolution"),
        (["--data", "sample", "--kernel", "20"], "too small"),
        (["--data", "sample", "--validation", "790"], "fewer than a batch"),
        (["--data", "sample", "--learning-rate", "0"], "learning_rate must be positive"),
        (["--data", "sample", "--latent", "3"], "Unrecognized options: --latent, 3"),
        (["--data", "sample", "--corrupt", "grey"], "Unrecognized options: --corrupt, grey"),
        (
            ["--data", "sample", "--network", "autoencoder", "--pools", "2"],
            "Unrecognized options: --pools, 2",
        ),
        (["--preset", "faces"], "--preset faces: is for --network autoencoder"),
        (
            ["--data", "sample", "--network", "autoencoder", "--corrupt", "rain:2"],
            "cannot read the corruption 'rain:2'",
        ),
        (
            ["--data", "sample", "--network", "autoencoder", "--corrupt", "noise:0"],
            "must be above 0, got 0",
        ),
        (
            ["--data", "sample", "--network", "autoencoder", "--corrupt", "grey"],
            "only images of 3 channels",
        ),
        (
            ["--data", "sample", "--network", "autoencoder", "--strides", "2"],
            "one stride per convolution",
        ),
        (["--data", "sample", "--network", "autoencoder", "--latent", "0"], "at least 1"),
        (["--data", "sample", "--size", "8", "8"], "are for your images"),
        (["--dataset", "fashion", "--data", "nowhere"], "no such folder"),
        (["--dataset", "nowhere"], "nowhere: no such folder or file"),
        (["--dataset", "."], "no images there"),
    ],
)
def test_bad_training_input(call, arguments, words):
    code, _, err = call("train", *arguments)
    assert code == 2 and words in err and "Traceback" not in err and not Path("oipjax-out").exists()


def test_a_folder_that_cannot_be_written_is_named(call, tiny_folder):
    Path("file").write_text("x")
    code, _, err = call("atlas", "--checkpoint", tiny_folder, *SMALL, "--out", "file/below")
    assert code == 2 and "file" in err and "Traceback" not in err


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(tiny_folder, tmp_path):
    """A real process, stopped by Ctrl-C in the middle, then called again."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [
        sys.executable,
        "-m",
        "oipjax.cli",
        "atlas",
        "--checkpoint",
        str(tiny_folder),
        "--draws",
        "64",
    ]
    command += ["--tile", "4", "--keep", "60", "--steps", "4000", "--restarts", "0", "--out"]
    process = subprocess.Popen(
        [*command, "broken"], env=environment, stderr=subprocess.PIPE, text=True
    )
    first = Path("broken/parts/ascent-00000.npz")
    deadline = time.monotonic() + 120
    while not first.exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert (
        process.returncode == 130
        and "the same call goes on from there" in err
        and "Traceback" not in err
    )
    assert not Path("broken/manifest.json").exists()
    done = int(re.findall(r"(\d+)/360", err)[-1])
    # --overwrite does not throw away what the very same run has done.
    again = subprocess.run(
        [*command, "broken", "--overwrite"], env=environment, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    manifest = json.loads(Path("broken/manifest.json").read_text())
    assert manifest["resumed"] and done < 360 and "survey" not in manifest["timing_s"]
    assert list((tmp_path / "cache" / "oipjax" / "xla").iterdir()), "compiled programs are kept"
    straight = subprocess.run(
        [*command, "straight"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert straight.returncode == 0, straight.stderr
    assert Path("broken/oips.npz").read_bytes() == Path("straight/oips.npz").read_bytes()


def test_bounds_prints_a_table(call, tiny_folder):
    where = ("--checkpoint", tiny_folder, "--layer", "conv2")
    code, out, _ = call("bounds", *where, "--maps", "0,1", "--space", "box")
    assert (
        code == 0
        and "score at most" in out
        and "1 of 2 maps of conv2 proved dead over box images" in out
    )
    code, _, err = call("bounds", *where, "--maps", "99")
    assert code == 2 and "no map of conv2 99: there are 6" in err

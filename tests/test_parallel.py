"""Many devices and many processes: the record has the bits of one process on one device."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from oipjax.runtime import in_flight
from oipjax.storage import FinishedElsewhere, exclusive, shared_store

ROOT = Path(__file__).parents[1]
FILES = ("oips.npz", "maps.csv")
ARGUMENTS = (
    *("--maps", "0-19,126", "--draws", "96", "--keep", "2", "--steps", "6", "--tile", "8"),
    *("--search", "0", "--restarts", "0", "--bounds", "none"),
)


def start(folder: Path, *more: str, devices: int = 1, cores: int | None = None) -> subprocess.Popen:
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "oipjax.cli", "atlas", *ARGUMENTS, "--out", str(folder), *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if cores is not None:
        program = f"import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}]);"
        command = [
            sys.executable,
            "-c",
            f"{program} from oipjax.cli.main import main; raise SystemExit(main())",
            *command[3:],
        ]
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def finish(*processes: subprocess.Popen) -> None:
    """Wait for all; the errors of one reach the reader even if the others wait for it in vain."""
    end = time.monotonic() + 300
    try:
        while any(process.poll() is None for process in processes) and not any(
            p.returncode for p in processes
        ):
            assert time.monotonic() < end, "still running"
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()
        errors = [process.communicate()[1] for process in processes]
    assert not any(process.returncode for process in processes), "\n".join(errors)[-2000:]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "record"
    finish(start(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("devices", [4, 8])
def test_devices_do_not_change_a_bit(alone, tmp_path, devices):
    finish(start(tmp_path / "record", devices=devices))
    for name in FILES:
        assert (tmp_path / "record" / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system cannot keep a process on one core"
)
def test_cores_do_not_change_a_bit(alone, tmp_path):
    finish(start(tmp_path / "record", cores=1))
    for name in FILES:
        assert (tmp_path / "record" / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.slow
def test_two_processes_make_one_record(alone, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder = tmp_path / "record"
    joined = ("--coordinator", address, "--processes", "2", "--process")
    finish(*(start(folder, *joined, str(number)) for number in range(2)))
    for name in FILES:
        assert (folder / name).read_bytes() == (alone / name).read_bytes()
    assert not (folder / "parts").exists()


@pytest.mark.slow
def test_two_processes_replace_one_record_together(alone, tmp_path):
    folder = tmp_path / "record"
    shutil.copytree(alone, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "note": "the old one"}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    joined = ("--overwrite", "--coordinator", address, "--processes", "2", "--process")
    finish(*(start(folder, *joined, str(number)) for number in range(2)))
    for name in FILES:
        assert (folder / name).read_bytes() == (alone / name).read_bytes()
    assert "note" not in json.loads((folder / "manifest.json").read_text())


@pytest.mark.slow
def test_two_processes_that_race_for_a_folder_never_mix_their_records(alone, tmp_path):
    """The second has another seed and ``--overwrite``: it is refused, or it replaces everything."""
    folder = tmp_path / "record"
    first = start(folder)
    end = time.monotonic() + 300
    while not list((folder / "parts").glob("survey-*.npz")):
        assert time.monotonic() < end and first.poll() is None
        time.sleep(0.01)
    second = start(folder, "--seed", "1", "--overwrite")
    messages = second.communicate()[1]
    is_refused = second.returncode == 2
    first.communicate()
    assert first.returncode == 0
    seed = json.loads((folder / "manifest.json").read_text())["seed"]
    assert (second.returncode, seed) in ((2, 0), (0, 1))
    if is_refused:
        assert "another process is at work" in messages and len(messages.splitlines()) == 1
    same = (folder / "oips.npz").read_bytes() == (alone / "oips.npz").read_bytes()
    assert same == (seed == 0)
    assert not (folder / "parts").exists()


def test_each_part_is_computed_once(tmp_path):
    computed = []

    def compute(number, name):
        computed.append((number, name))
        return {"x": np.full(3, len(name))}

    stores = [shared_store(tmp_path, "plan", number, 2, lambda: False) for number in range(2)]
    # Process 0 has the first turn, process 1 the second; each finds the other's on disk.
    for number, name in ((0, "a"), (1, "a"), (1, "bb"), (0, "bb")):
        part = stores[number](name, lambda number=number, name=name: compute(number, name))
        np.testing.assert_array_equal(part["x"], len(name))
    assert computed == [(0, "a"), (1, "bb")]


def test_who_waits_for_a_finished_record_is_told(tmp_path):
    store = shared_store(tmp_path, "plan", 1, 2, lambda: True)
    with pytest.raises(FinishedElsewhere):
        store("a", dict)
    with pytest.raises(FinishedElsewhere):
        store.leave()
    with pytest.raises(ValueError, match="from 0 to 1, got 2"):
        shared_store(tmp_path, "plan", 2, 2, lambda: True)


def test_one_process_at_a_time(tmp_path):
    with (
        exclusive(tmp_path),
        pytest.raises(ValueError, match="another process"),
        exclusive(tmp_path),
    ):
        pass
    with exclusive(tmp_path):
        pass


def test_results_come_in_order_and_errors_come_out():
    assert list(in_flight(lambda number, piece: (number, piece * 2), range(9))) == [
        (i, 2 * i) for i in range(9)
    ]

    def fail(number, piece):
        if piece == 3:
            raise ValueError("three")
        return piece

    seen = []
    with pytest.raises(ValueError, match="three"):
        for result in in_flight(fail, range(9)):
            seen.append(result)
    assert seen == [0, 1, 2]

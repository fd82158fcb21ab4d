"""Faults of machines and people: kills, full disks, damaged parts, two runs at once, odd names."""

import ast
import atexit
import dataclasses
import errno
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from fake_engine import CONFIG, FakeEngine, write_inputs

from jaxsed.catalog import run as running
from jaxsed.catalog.chunk import datasets
from jaxsed.catalog.config import load_config
from jaxsed.catalog.flags import Flag
from jaxsed.catalog.flows import shipped_flow
from jaxsed.catalog.plan import resolve
from jaxsed.catalog.results import folder as run_folder
from jaxsed.catalog.results import load_results, parts, writer
from jaxsed.catalog.run import fit_catalog
from jaxsed.catalog.tables import read_catalog
from jaxsed.core.errors import JaxsedError
from jaxsed.infer.samplers.base import SamplerRun
from jaxsed.infer.schedule.galaxies import Galaxies
from jaxsed.io import files, locks
from jaxsed.io.outputs import save_table

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def inputs(tmp_path):
    return write_inputs(tmp_path)


@pytest.fixture
def at_once(monkeypatch):
    """Finished galaxies are written as soon as they are handed over, not every minute."""
    monkeypatch.setattr(writer, "PART_SECONDS", 0.0)


def fit(inputs, output, *, engine=None, table=None, **options):
    catalog, config = inputs
    engine = engine or FakeEngine()
    return fit_catalog(
        config, catalog, output, table, engine=engine, progress=options.pop("progress", False),
        **options,
    )  # fmt: skip


def interrupted(inputs, output, chunks=2, **options):
    with pytest.raises(KeyboardInterrupt):
        fit(inputs, output, engine=FakeEngine(stop_after=chunks), **options)


@functools.cache
def undisturbed():
    """Results of a run of the same catalogue that nothing happened to."""
    folder = Path(tempfile.mkdtemp(prefix="jaxsed-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return fit(write_inputs(folder), folder / "undisturbed.h5")


def assert_whole(results):
    """Every row has what an undisturbed run gives it."""
    expected = undisturbed()
    assert (results.flags == 0).all()
    for name in expected.quantities:
        np.testing.assert_array_equal(results.summary(name), expected.summary(name))
    np.testing.assert_array_equal(results.draws(row=5)["beta"], expected.draws(row=5)["beta"])


def program(inputs, output, body, engine="FakeEngine()", **options):
    """A process that runs a fit after `body`."""
    catalog, config = inputs
    text = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_engine import FakeEngine
from jaxsed.catalog.results import folder as run_folder
from jaxsed.catalog.results import parts, writer
from jaxsed.catalog.run import fit_catalog
folder = Path({str(catalog.parent)!r})
{body}
fit_catalog({str(config)!r}, {str(catalog)!r}, {str(output)!r}, engine={engine}, progress=False,
            **{options!r})
"""
    return subprocess.Popen(
        [sys.executable, "-c", text], cwd=REPOSITORY, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(path, process, seconds=120.0):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


# ------------------------------------------------------------------ files that are replaced


def litter(folder):
    return [path.name for path in folder.rglob("*") if path.name.endswith(files.TEMPORARY)]


def component(path, value=1.0):
    files.write(path, "test", {"x": np.full(3, value)}, {})


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "p.h5"
    component(path)
    component(path, 2.0)
    assert files.read(path, "test")[0]["x"].tolist() == [2, 2, 2]
    assert [p.name for p in tmp_path.iterdir()] == ["p.h5"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "p.txt"
    path.write_text("old")
    with pytest.raises(error), files.replacing(path) as new:
        new.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert not litter(tmp_path)


def test_content_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    done = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(handle):
        done.append(("sync", os.fstat(handle).st_ino))
        real_sync(handle)

    def replace(new, path):
        done.append(("rename", os.stat(new).st_ino))
        real_replace(new, path)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    files.write_text(tmp_path / "p.txt", "text")
    inode = (tmp_path / "p.txt").stat().st_ino
    assert done[:2] == [("sync", inode), ("rename", inode)]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "p.txt"
    with files.replacing(path) as first, files.replacing(path) as second:
        assert first != second
        assert {first.parent, second.parent} == {tmp_path}
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the last to end
    assert not litter(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_the_file_or_of_the_process(tmp_path):
    files.write_text(tmp_path / "new.txt", "text")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "new.txt").stat().st_mode & 0o777 == 0o666 & ~mask
    (tmp_path / "old.txt").write_text("old")
    (tmp_path / "old.txt").chmod(0o640)
    files.write_text(tmp_path / "old.txt", "text")
    assert (tmp_path / "old.txt").stat().st_mode & 0o777 == 0o640


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    target = tmp_path / "elsewhere" / "p.txt"
    target.parent.mkdir()
    target.write_text("old")
    (tmp_path / "p.txt").symlink_to(target)
    files.write_text(tmp_path / "p.txt", "text")
    assert (tmp_path / "p.txt").is_symlink()
    assert target.read_text() == "text"


@pytest.mark.parametrize("name", ["p.h5.partial", "p.h5.part", "p.h5.new", "p.new.h5", "p.h5.tmp"])
@pytest.mark.parametrize("linked", [False, True])
def test_files_of_similar_names_are_the_users(tmp_path, name, linked):
    precious = tmp_path / ("precious" if linked else name)
    precious.write_text("precious")
    if linked:  # nothing is written through a link that lies in wait
        (tmp_path / name).symlink_to(precious)
    component(tmp_path / "p.h5")
    assert precious.read_text() == "precious"
    assert (tmp_path / name).exists()


def test_something_else_than_a_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file") as error:
        files.write_text(tmp_path / "pipe", "text")
    assert error.value.filename == str(tmp_path / "pipe")


def test_no_space_names_the_file(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device: .*p.h5") as error:
        component(tmp_path / "p.h5")
    assert error.value.filename == str(tmp_path / "p.h5")
    assert not list(tmp_path.iterdir())


WRITES = {"write_text", "write_bytes", "savefig", "save", "savez"}


def writes_in_place(source: str) -> list[int]:
    """Lines that write a file by its own name, where `files.replacing` should give one."""
    tree = ast.parse(source)
    spans: list[tuple[int, int]] = []
    calls = []
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and any("replacing" in ast.unparse(i) for i in node.items):
            spans.append((node.lineno, node.end_lineno or node.lineno))
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        name = called.split(".")[-1]
        given = [ast.unparse(a) for a in (*node.args, *(k.value for k in node.keywords))]
        plain = name in WRITES and called not in ("files.write_text", "checkpoints.save")
        if name == "save" and not called.startswith(("np.", "numpy.")):
            plain = False  # methods that end in `files.write`
        creates = called.endswith("h5py.File") and any(mode in given for mode in ("'w'", "'a'"))
        replaces = any(k.arg == "overwrite" for k in node.keywords) and name in ("write", "writeto")
        opens = name == "open" and any(g.startswith(("'w", "'a", "'x")) for g in given)
        in_memory = "io.BytesIO()" in given
        if (plain or creates or replaces or opens) and not in_memory:
            calls.append(node.lineno)
    return [line for line in calls if not any(low <= line <= high for low, high in spans)]


def test_every_writer_of_the_package_replaces_whole_files():
    found = {
        str(path.relative_to(REPOSITORY)): lines
        for path in sorted((REPOSITORY / "jaxsed").rglob("*.py"))
        if (lines := writes_in_place(path.read_text()))
    }
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "Path(name).write_text(text)", "h5py.File(path, 'w')", "figure.savefig(path)",
        "table.write(path, overwrite=True)", "open(path, 'wb')", "np.save(path, array)",
    ],
)  # fmt: skip
def test_writing_in_place_is_seen(line):
    assert writes_in_place(line) == [1]
    assert not writes_in_place(f"with files.replacing(path) as new:\n    {line}")


# ------------------------------------------------------------------ locks


def test_lock_is_held_once_and_given_back(tmp_path):
    lock = locks.Lock(tmp_path / "lock", what="test")
    assert lock.left is None
    with pytest.raises(locks.Held) as held:
        locks.Lock(tmp_path / "lock")
    assert held.value.owner["pid"] == os.getpid()
    assert held.value.owner["what"] == "test"
    assert f"process {os.getpid()} on " in str(held.value)
    lock.release()
    assert not list(tmp_path.iterdir())
    locks.Lock(tmp_path / "lock").release()


def test_lock_that_was_removed_between_opening_and_locking(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    real, path = fcntl.flock, tmp_path / "lock"
    removed = []

    def flock(handle, how):
        if not removed:
            removed.append(path.unlink())
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = locks.Lock(path)
    monkeypatch.undo()
    with pytest.raises(locks.Held):
        locks.Lock(path)
    lock.release()


OWNERS = {
    "dead": ({"host": "here", "pid": 2**22 + 7, "since": "yesterday"}, True),
    "alive": ({"host": "here", "pid": os.getpid(), "since": "yesterday"}, False),
    "elsewhere": ({"host": "there", "pid": 2**22 + 7, "since": "yesterday"}, False),
}


@pytest.mark.parametrize(("owner", "taken"), OWNERS.values(), ids=OWNERS)
def test_lock_without_locks_of_the_system(tmp_path, monkeypatch, owner, taken):
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks.socket, "gethostname", lambda: "here")
    path = tmp_path / "lock"
    path.write_text(json.dumps(owner))
    if not taken:
        with pytest.raises(locks.Held, match=f"process {owner['pid']} on {owner['host']} since"):
            locks.Lock(path)
        assert json.loads(path.read_text()) == owner
        return
    lock = locks.Lock(path)
    assert lock.left == owner
    with pytest.raises(locks.Held):
        locks.Lock(path)
    lock.release()
    assert not path.exists()


def test_second_run_of_an_output_is_refused_until_the_first_is_killed(inputs, tmp_path, capsys):
    output = tmp_path / "r.h5"
    waits = """
writer.PART_SECONDS = 0.0
class Waits(FakeEngine):
    def __call__(self, *arguments):
        if len(self.calls) == 1:
            (folder / "waiting").touch()
            time.sleep(600)
        return super().__call__(*arguments)
"""
    first = program(inputs, output, waits, engine="Waits()")
    try:
        wait_for(tmp_path / "waiting", first)
        for options in ({}, {"overwrite": True}, {"resume": True}):
            engine = FakeEngine()
            with pytest.raises(JaxsedError, match=f"in use by process {first.pid} on .* since 2"):
                fit(inputs, output, engine=engine, **options)
            assert engine.calls == []
        fit(inputs, tmp_path / "other.h5")  # another output is free
    finally:
        first.kill()
        first.wait()
    engine = FakeEngine()
    assert_whole(fit(inputs, output, engine=engine, resume=True, progress=True))
    assert [len(ids) for ids in engine.calls] == [4, 2]
    assert f"left by process {first.pid} on" in capsys.readouterr().err.replace("\n", "")


def test_output_taken_over_where_locks_are_not_seen(inputs, tmp_path, at_once, monkeypatch):
    """As on network file systems with locks that are local to a host."""
    output = tmp_path / "r.h5"

    class Blind(locks.Lock):
        def __init__(self, path, **note):
            super().__init__(path.with_name(f".{id(self)}.tmp"), **note)

    monkeypatch.setattr(writer, "Lock", Blind)

    class Overtaken(FakeEngine):
        def __call__(self, *arguments):
            if len(self.calls) == 2:
                interrupted(inputs, output, overwrite=True)
            return super().__call__(*arguments)

    with pytest.raises(JaxsedError, match="another run has taken .*over: this one stops"):
        fit(inputs, output, engine=Overtaken())
    assert not output.exists()
    assert_whole(fit(inputs, output, resume=True))


def test_one_process_fills_a_folder_of_pairs(tmp_path):
    import jax

    from jaxsed.emulators.training.pairs import simulate_pairs

    def simulate(key, n):
        assert (tmp_path / "lock").exists()
        with pytest.raises(ValueError, match=f"in use by process {os.getpid()} on"):
            simulate_pairs(jax.random.key(0), simulate, 4, (2, 1), folder=tmp_path)
        return np.ones((n, 2), np.float32), np.ones((n, 1), np.float32)

    pairs = simulate_pairs(jax.random.key(0), simulate, 4, (2, 1), folder=tmp_path)
    assert pairs.features.shape == (4, 2)
    assert not (tmp_path / "lock").exists()


# ------------------------------------------------------------------ parts


def parts_of(output):
    return sorted(run_folder.parts_folder(output).glob("part_*.h5"))


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    content = bytearray(path.read_bytes())
    place = content.find(np.float32(900).tobytes())  # an effective sample size
    content[place + 2] ^= 4
    path.write_bytes(content)


def rewritten(change):
    def spoil(path):
        arrays, attributes = files.read(path, parts.PART)
        change(arrays, attributes)
        files.write(path, parts.PART, arrays, attributes)

    return spoil


def shortened(arrays, attributes):
    arrays["numbers/diagnostics/flag"] = arrays["numbers/diagnostics/flag"][:-1]


SPOILED = {
    "empty": lambda path: path.write_bytes(b""),
    "half": halved,
    "without datasets": lambda path: h5py.File(path, "w").close(),
    "a flipped byte": flipped,
    "of another kind": lambda path: component(path),
    "of another run": rewritten(lambda arrays, attributes: attributes.update(run="another")),
    "without its run": rewritten(lambda arrays, attributes: attributes.pop("run")),
    "short": rewritten(shortened),
    "one dataset less": rewritten(lambda arrays, attributes: arrays.pop("numbers/summary/a_v")),
    "rows beyond the table": rewritten(
        lambda arrays, attributes: arrays.update(rows=arrays["rows"] + 100)
    ),
    "a row twice": rewritten(lambda arrays, attributes: arrays.update(rows=0 * arrays["rows"])),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_bad_parts_are_fitted_again(inputs, tmp_path, at_once, capsys, spoil):
    output = tmp_path / "r.h5"
    interrupted(inputs, output)
    path = parts_of(output)[1]
    spoil(path)
    told = path.exists()
    engine = FakeEngine()
    assert_whole(fit(inputs, output, engine=engine, resume=True, progress=True))
    assert engine.calls == [["105", "106", "107", "108"], ["109", "110"]]
    assert (f"{path.name} is left out" in capsys.readouterr().err.replace("\n", "")) == told


def test_rows_in_two_parts_are_written_once(inputs, tmp_path, at_once):
    output = tmp_path / "r.h5"
    interrupted(inputs, output)
    path = parts_of(output)[0]
    path.with_name("part_000000000_aaaaaaaa.h5").write_bytes(path.read_bytes())
    assert_whole(fit(inputs, output, resume=True))


HEADERS = {
    "empty mapping": "{}",
    "half": '{"schema": "jaxs',
    "empty": "",
    "list": "[]",
    "other version": (
        '{"schema": "jaxsed-run 1", "run": "a", "replaces": false, "identity": {}}'
    ),
    "no identity": '{"schema": "jaxsed-run 2", "run": "a", "replaces": false}',
    "brackets": "[" * 100_000,
}


@pytest.mark.parametrize("text", HEADERS.values(), ids=HEADERS)
def test_damaged_header_is_not_resumed(inputs, tmp_path, at_once, text):
    output = tmp_path / "r.h5"
    interrupted(inputs, output)
    (run_folder.parts_folder(output) / "run.json").write_text(text)
    with pytest.raises(JaxsedError, match=r"cannot resume .*run.json.*--overwrite"):
        fit(inputs, output, resume=True)
    engine = FakeEngine()
    assert_whole(fit(inputs, output, engine=engine, overwrite=True))
    assert len(engine.calls) == 3
    assert not run_folder.parts_folder(output).exists()


def test_files_of_others_in_the_folder_of_parts_stay(inputs, tmp_path, at_once):
    output = tmp_path / "r.h5"
    interrupted(inputs, output)
    (run_folder.parts_folder(output) / "thesis.txt").write_text("precious")
    fit(inputs, output, overwrite=True)
    assert [p.name for p in run_folder.parts_folder(output).iterdir()] == ["thesis.txt"]
    (run_folder.parts_folder(output) / "run.json").write_text("{}")
    with pytest.raises(JaxsedError, match="not made by jaxsed: move it"):
        fit(inputs, output, overwrite=True)
    assert (run_folder.parts_folder(output) / "thesis.txt").read_text() == "precious"


# ------------------------------------------------------------------ the end of a run


class Killed(BaseException):
    """In place of SIGKILL."""


def kill_at(monkeypatch, number):
    """Die at this step of those that change names; from then on nothing is cleaned up either."""
    done = []

    def wrap(real):
        def dying(*arguments, **options):
            if len(done) == number:
                raise Killed
            done.append(real.__name__)
            return real(*arguments, **options)

        return dying

    for name in ("replace", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, wrap(getattr(os, name)))


@pytest.mark.parametrize("then", ["resume", "overwrite"])
@pytest.mark.parametrize("step", range(8))
def test_killed_at_any_moment_of_the_end(inputs, tmp_path, at_once, monkeypatch, step, then):
    output = tmp_path / "r.h5"
    real, locked = writer.ResultWriter.finish, []

    def finish(self, *arguments, **options):
        locked.append(self._lock)
        kill_at(monkeypatch, step)
        real(self, *arguments, **options)

    monkeypatch.setattr(writer.ResultWriter, "finish", finish)
    killed = False
    try:
        fit(inputs, output)
    except Killed:
        killed = True
        if locked[0]._handle is not None:
            os.close(locked[0]._handle)  # as the system does when a process ends
    monkeypatch.undo()
    assert killed == (step < 7)  # the output; three parts and the header; the lock; the folder
    assert output.exists() == (step > 0)
    engine = FakeEngine()
    assert_whole(fit(inputs, output, engine=engine, **{then: True}))
    assert len(engine.calls) == (0 if then == "resume" else 3)
    assert not run_folder.parts_folder(output).exists()
    assert not litter(tmp_path)


def test_resume_does_not_replace_a_file_that_came_meanwhile(inputs, tmp_path, at_once):
    output = tmp_path / "r.h5"
    interrupted(inputs, output)
    output.write_text("precious")
    with pytest.raises(JaxsedError, match="of another run than the unfinished one: move it"):
        fit(inputs, output, resume=True)
    assert output.read_text() == "precious"


def test_resuming_an_overwriting_run_replaces_the_old_results(inputs, tmp_path, at_once):
    output = tmp_path / "r.h5"
    fit(inputs, output, seed=3)
    interrupted(inputs, output, overwrite=True)
    assert load_results(output).provenance["seed"] == 3
    assert_whole(fit(inputs, output, resume=True))


def test_a_missing_row_is_no_table(inputs, tmp_path, at_once, monkeypatch):
    output = tmp_path / "r.h5"
    real = writer.ResultWriter.add

    def add(self, rows, tree, **times):
        if 5 in rows:
            rows, tree = rows[rows != 5], {name: a[rows != 5] for name, a in tree.items()}
        real(self, rows, tree, **times)

    monkeypatch.setattr(writer.ResultWriter, "add", add)
    with pytest.raises(JaxsedError, match=r"1 rows have no result \(first: 5\)"):
        fit(inputs, output)
    assert not output.exists()
    monkeypatch.undo()
    engine = FakeEngine()
    assert_whole(fit(inputs, output, engine=engine, resume=True))
    assert engine.calls == [["106"]]


def without_chi2(result, row):
    chi2 = np.array(result.goodness.chi2, float)
    chi2[row] = np.nan
    return result._replace(goodness=dataclasses.replace(result.goodness, chi2=chi2))


def too_large_for_storage(result, row):
    draws = np.array(result.derived["a_v"], float)
    draws[row] = 1e300  # finite in float64
    return result._replace(derived={**result.derived, "a_v": draws})


@pytest.mark.parametrize("spoil", [without_chi2, too_large_for_storage])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_no_row_has_nan_and_no_flag(inputs, tmp_path, spoil):
    class Odd(FakeEngine):
        def __call__(self, ids, observations, seeds):
            result = super().__call__(ids, observations, seeds)
            return spoil(result, ids.index("106")) if "106" in ids else result

    results = fit(inputs, tmp_path / "r.h5", engine=Odd())
    failed = (results.flags & int(Flag.NUMERICAL_FAILURE)) != 0
    assert (failed == (results.ids == "106")).all()
    assert np.array_equal(results.flags != 0, failed)
    finite = np.isfinite(results.summary("a_v")).all(axis=1)
    finite &= np.isfinite(results.diagnostic("chi2"))
    assert (finite | (results.flags != 0)).all()


# ------------------------------------------------------------------ which run it is


def test_the_catalogues_hash_sees_every_column(inputs):
    catalog, config = inputs
    observations = read_catalog(catalog, resolve(load_config(config)).reader)
    hashes = {running._catalog_checksum(observations)}
    for name in ("id", "redshift", "flux", "error", "kind", "flag"):
        for place in (0, -1):
            values = getattr(observations, name).copy()
            flat = values.reshape(-1)
            flat[place] = "999" if name == "id" else flat[place] + (flat[place] / 1e12 or 1)
            if name in ("kind", "flag"):
                flat[place] = 2
            hashes.add(running._catalog_checksum(observations._replace(**{name: values})))
    swapped = observations._replace(flux=observations.error, error=observations.flux)
    hashes.add(running._catalog_checksum(swapped))
    wide = observations._replace(id=observations.id.astype("U99"))
    assert running._catalog_checksum(wide) in hashes
    assert len(hashes) == 14


@pytest.mark.parametrize("column", ["g_flux", "g_err", "z", "ID"])
def test_a_changed_value_is_another_catalogue(inputs, tmp_path, at_once, column):
    output = tmp_path / "r.h5"
    interrupted(inputs, output)
    catalog, _ = inputs
    lines = [line.split(",") for line in catalog.read_text().splitlines()]
    place = lines[0].index(column)
    lines[4][place] += "1"  # of the flux a digit more, and nothing of its error
    catalog.write_text("\n".join(map(",".join, lines)) + "\n")
    with pytest.raises(JaxsedError, match="cannot resume .*the catalogue "):
        fit(inputs, output, resume=True)


@pytest.mark.parametrize(
    ("then", "now"), [("a", "b"), (None, "b"), ("a", None)], ids=["other", "new", "none"]
)
def test_another_flow_is_not_resumed(inputs, tmp_path, at_once, then, now):
    def engine(checksum, **options):
        fake = FakeEngine(**options)
        if checksum is not None:
            fake.provenance["flow_checksum"] = checksum
        return fake

    output = tmp_path / "r.h5"
    with pytest.raises(KeyboardInterrupt):
        fit(inputs, output, engine=engine(then, stop_after=1))
    with pytest.raises(JaxsedError, match="cannot resume .*the flow_checksum "):
        fit(inputs, output, engine=engine(now), resume=True)
    assert_whole(fit(inputs, output, engine=engine(then), resume=True))


def test_the_run_is_named_in_the_results(inputs, tmp_path):
    one = fit(inputs, tmp_path / "a.h5").provenance["run"]
    two = fit(inputs, tmp_path / "b.h5").provenance["run"]
    assert len(one) == len(two) == 32
    assert one != two


# ------------------------------------------------------------------ parts by time


class Gradual(FakeEngine):
    """Finishes the galaxies of a chunk one after the other, the last first."""

    in_parts = True

    def __init__(self, *, dies_at=None, **options):
        super().__init__(**options)
        self.dies_at = dies_at

    def __call__(self, ids, observations, seeds, keep=None):
        def result(rows):
            fake = FakeEngine()
            return fake([ids[r] for r in rows], observations.rows(rows), seeds[rows])

        self.calls.append(list(ids))
        for done in range(1, len(ids)):
            keep(np.arange(len(ids))[::-1][:done], result)
            if done == self.dies_at:
                raise KeyboardInterrupt
        return result(np.arange(len(ids)))


@pytest.fixture
def one_chunk(inputs):
    inputs[1].write_text(CONFIG.replace("batch = 4", "batch = 512"))
    return inputs


def test_finished_galaxies_of_a_chunk_outlive_a_kill(one_chunk, tmp_path, at_once):
    output = tmp_path / "r.h5"
    with pytest.raises(KeyboardInterrupt):
        fit(one_chunk, output, engine=Gradual(dies_at=7))
    assert len(parts_of(output)) == 7
    engine = Gradual()
    assert_whole(fit(one_chunk, output, engine=engine, resume=True))
    assert engine.calls == [["101", "102", "103"]]


def test_parts_come_by_time(one_chunk, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(writer.time, "monotonic", lambda: now[0])
    written = []
    real = writer.ResultWriter.flush

    def flush(self):
        written.append(sum(len(rows) for rows, _ in self._waiting))
        real(self)

    monkeypatch.setattr(writer.ResultWriter, "flush", flush)

    class Slow(Gradual):
        def __call__(self, ids, observations, seeds, keep=None):
            def later(finished, result):
                now[0] += 25.0
                keep(finished, result)

            return super().__call__(ids, observations, seeds, later)

    assert_whole(fit(one_chunk, tmp_path / "r.h5", engine=Slow()))
    assert written[:4] == [3, 3, 3, 1]


def test_small_chunks_share_a_part(inputs, tmp_path, monkeypatch):
    kept = []
    real = writer.ResultWriter._clear
    monkeypatch.setattr(
        writer.ResultWriter, "_clear",
        lambda self: (kept.append(len(parts_of(self.output))), real(self)),
    )  # fmt: skip
    engine = FakeEngine()
    fit(inputs, tmp_path / "r.h5", engine=engine)
    assert len(engine.calls) == 3
    assert kept[-1] == 1
    monkeypatch.setattr(writer, "PART_BYTES", 1)
    fit(inputs, tmp_path / "s.h5")
    assert kept[-1] == 3


@pytest.mark.slow
def test_engine_hands_over_what_it_returns(monkeypatch):
    """With the real model, and a sampler that finishes the galaxies at some places first."""
    import jax

    from jaxsed.catalog.engine import Engine
    from jaxsed.examples import __path__ as examples

    config = load_config(Path(examples[0]) / "goodss.toml")
    sampler = dataclasses.replace(config.sampler, method="auto")
    config = dataclasses.replace(config, sampler=sampler)
    plan = resolve(config)
    observations = read_catalog(Path(examples[0]) / "goodss.ecsv", plan.reader).rows(np.arange(5))
    engine = Engine(plan)
    engine.prepare(observations.redshift)
    assert engine.provenance["flow_checksum"] == files.checksum(shipped_flow("provabgs_goodss"))
    assert len(engine.provenance["ssp_checksum"]) == 64
    assert len(engine.provenance["emulator_checksum"]) == 64
    places, kept = np.array([3, 1]), {}

    def sample(keys, problem, method, *, keep, derive, slots, **options):
        galaxies = Galaxies(keys, problem, derive=derive, shape=(2, 40), slots=slots)
        x = jax.vmap(lambda key: jax.random.normal(key, (2, 40, problem.dimension)))(keys)
        runs = [SamplerRun(np.asarray(a), np.zeros(a.shape[:2])) for a in x]
        galaxies.diagnose(np.arange(len(runs)), runs, "test")
        keep(places, galaxies.samples)
        return galaxies.samples()

    monkeypatch.setattr("jaxsed.infer.sample", sample)
    seeds = running.seeds_of(0, list(observations.id), observations.occurrence)
    whole = engine(
        list(observations.id), observations, seeds,
        lambda finished, result: kept.update(result=result(finished)),
    )  # fmt: skip
    part, expected = (datasets(r, np.zeros(len(r.flag)), 80) for r in (kept["result"], whole))
    assert part.keys() == expected.keys()
    for name, value in part.items():
        wanted = expected[name][places]
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(value, wanted, rtol=1e-4, err_msg=name)
        else:
            assert np.array_equal(value, wanted), name



def test_order_of_finishing_does_not_matter(one_chunk, tmp_path, at_once):
    assert_whole(fit(one_chunk, tmp_path / "r.h5", engine=Gradual()))


# ------------------------------------------------------------------ told before sampling


IDS = {
    "non-ASCII": ([f"gal\u03b1{i}" for i in range(10)], "ID", {".fits"}),
    "non-ASCII name": (list(range(10)), "N\u00b0", {".fits"}),
    "boolean": ([i % 2 == 0 for i in range(10)], "ID", set()),
    "NUL": ([f"a\0{i}" for i in range(10)], "ID", {".h5", ".ecsv", ".fits", ".csv"}),
}


@pytest.mark.parametrize("suffix", [".ecsv", ".fits", ".csv"])
@pytest.mark.parametrize(("values", "name", "refused"), IDS.values(), ids=IDS)
def test_ids_that_cannot_be_stored_are_told_at_once(
    inputs, tmp_path, monkeypatch, values, name, refused, suffix
):
    """... and those that can be, are."""
    from astropy.table import Table

    catalog, config = inputs
    read = Table.read(catalog)
    read["ID"] = np.array(values)
    read.rename_column("ID", name)
    monkeypatch.setattr("jaxsed.catalog.tables.read_table", lambda path, **options: read)
    config.write_text(CONFIG.replace('id = "ID"', f'id = "{name}"'), encoding="utf-8")
    engine, table = FakeEngine(), tmp_path / f"t{suffix}"
    if suffix in refused:
        with pytest.raises(JaxsedError) as error:
            fit(inputs, tmp_path / "r.h5", engine=engine, table=table)
        assert repr(name) in str(error.value)
        assert "\n" not in str(error.value)
        assert engine.calls == []
        assert not list(tmp_path.glob("r.h5*"))
    else:
        fit(inputs, tmp_path / "r.h5", engine=engine, table=table)
        back = np.asarray(Table.read(table)[name]).astype(str)
        assert back.tolist() == [str(value) for value in values]


# ------------------------------------------------------------------ full disks


def test_full_disk_is_one_line_and_resumes(inputs, tmp_path, at_once, monkeypatch):
    output = tmp_path / "r.h5"
    real, synced = os.fsync, []

    def fsync(handle):
        synced.append(handle)
        if len(synced) > 4:  # the header and a part, each with its folder
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(JaxsedError) as error:
        fit(inputs, output)
    monkeypatch.undo()
    folder = str(run_folder.parts_folder(output))
    for words in ("cannot write", folder, "No space left", "--resume"):
        assert words in str(error.value)
    engine = FakeEngine()
    assert_whole(fit(inputs, output, engine=engine, resume=True))
    assert len(engine.calls) == 2


def test_full_disk_at_the_table_keeps_the_results(inputs, tmp_path, monkeypatch):
    def full(table, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("jaxsed.catalog.results.reader.save_table", full)
    with pytest.raises(JaxsedError, match=r"cannot write .*t.ecsv.*No space left.*--resume"):
        fit(inputs, tmp_path / "r.h5", table=tmp_path / "t.ecsv")
    monkeypatch.undo()
    engine = FakeEngine()
    fit(inputs, tmp_path / "r.h5", table=tmp_path / "t.ecsv", engine=engine, resume=True)
    assert engine.calls == []
    assert (tmp_path / "t.ecsv").exists()


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
@pytest.mark.parametrize("what", ["output", pytest.param("part", marks=pytest.mark.slow)])
def test_a_file_that_the_system_cuts_short_is_one_line(inputs, tmp_path, what):
    """HDF5's own writing fails, as on a full disk, and the process lives on."""
    output = tmp_path / "r.h5"
    body = f"""
import resource
def limited(real):
    def call(self, *arguments, **options):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        return real(self, *arguments, **options)
    return call
if {what == "output"}:
    writer.ResultWriter.finish = limited(writer.ResultWriter.finish)
else:
    writer.ResultWriter.flush = limited(writer.ResultWriter.flush)
sys.excepthook = lambda kind, error, trace: print(kind.__name__, error)
"""
    out, said = program(inputs, output, body).communicate()
    assert said == ""
    assert out.startswith("JaxsedError cannot write"), out
    assert "File too large" in out
    assert out.count("\n") == 1
    assert not output.exists()
    assert_whole(fit(inputs, output, resume=True))
    assert not litter(tmp_path)


def test_command_tells_of_a_full_disk_in_one_line(monkeypatch, capsys):
    from jaxsed import cli

    def full(arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.h5")

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "jaxsed: model.h5: No space left on device\n"


def test_tables_are_replaced_whole(tmp_path, monkeypatch):
    from astropy.table import Table

    for suffix in (".ecsv", ".fits", ".csv"):
        path = tmp_path / f"t{suffix}"
        save_table(Table({"a": [1, 2]}), path)
        with monkeypatch.context() as patch, pytest.raises(OSError, match="t" + suffix):
            patch.setattr(os, "replace", lambda new, name: (_ for _ in ()).throw(OSError(name)))
            save_table(Table({"a": [3]}), path)
        assert Table.read(path)["a"].tolist() == [1, 2]
    assert not litter(tmp_path)

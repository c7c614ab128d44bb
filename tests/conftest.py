"""Fixtures shared by all tests."""

import ctypes
import gc
import itertools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

# Two cores, small tensors: a team of threads for each operation costs more than it gives.
os.environ.setdefault("OMP_NUM_THREADS", "1")

try:
    from hypothesis import settings
except ModuleNotFoundError:
    pass
else:
    settings.load_profile("ci")  # no deadlines, the same examples each time: what fails on a busy machine shows nothing

# glibc keeps what a test has freed, gigabytes in the end. Other C libraries have no such function.
return_freed_memory = getattr(ctypes.CDLL(None), "malloc_trim", lambda padding: 0)
GROWTH = 50 * 2**20  # bytes; to collect takes 0.4 s, too long for every test
floor = 0


def resident() -> int:
    """Bytes of this process in memory; 0 where /proc does not tell."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def pytest_runtest_logfinish() -> None:
    """Free the memory of each test, after its fixtures. Models in reference cycles need the collector."""
    global floor
    return_freed_memory(0)
    if resident() > floor + GROWTH:
        gc.collect()
        return_freed_memory(0)
        floor = resident()
    floor = min(floor, resident())


REALDATA = Path(__file__).resolve().parents[2] / "shared" / "realdata"


@pytest.fixture(scope="session")
def caches(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("caches")


number_of_test = itertools.count()


@pytest.fixture(autouse=True)
def own_cache(caches, monkeypatch):
    """No test reads or leaves anything in the user's cache directory."""
    monkeypatch.setenv("GENIE_ROBOTICS_CACHE", str(caches / str(next(number_of_test))))


@pytest.fixture(autouse=True)
def no_opengl_here(monkeypatch):
    """A test process may go on to TensorFlow, which crashes beside Mesa's OpenGL: only workers render with it."""
    monkeypatch.setattr("genie_datasets.tabletop.render.use_opengl", lambda: None)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Real robot video; its licence does not let it travel with the project."""
    if not REALDATA.is_dir():
        pytest.skip(f"no real robot data at {REALDATA}")
    return REALDATA


@pytest.fixture(scope="session")
def make_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """`make_once(name, make)`: a folder that `make(folder)` fills once for all processes of pytest-xdist.

    Tests must not change what is in it.
    """
    from genie_datasets.base.file_lock import file_lock

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        made, complete = root / f"shared_{name}", root / f"shared_{name}.complete"
        with file_lock(root / f"shared_{name}.lock"):
            if not complete.exists():
                shutil.rmtree(made, ignore_errors=True)  # of a process that failed
                made.mkdir()
                make(made)
                complete.touch()
        return made

    return folder


@pytest.fixture(scope="session")
def tabletop_rlds(make_once) -> Path:
    """A tiny tabletop data set, train and test."""
    from genie_datasets.tabletop.generate import generate

    splits = {"train": 0.5, "test": 0.5}
    out = make_once("tabletop", lambda out: generate(out / "rlds", 8, 0, splits=splits, workers=2, progress=False))
    return out / "rlds" / "tabletop" / "1.0.0"


@pytest.fixture
def small_suite(monkeypatch):
    """The consistency suite at the size of a smoke test."""
    from genie_eval import evaluation
    from genie_eval.pretrain.recipes import recipe, smoke

    small = smoke(recipe("nano-tabletop")).evaluation
    run_suite = evaluation.evaluate

    def evaluate(genie, source, out, **options):
        options["config"] = small
        return run_suite(genie, source, out, **options)

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    monkeypatch.setattr("genie_eval.evaluate", evaluate, raising=False)


@pytest.fixture
def no_figures(monkeypatch):
    """Reports without figures, which take most of the time of a small one."""
    monkeypatch.setattr("genie_eval.report.write.draw", lambda *_: [])
    monkeypatch.setattr("genie_eval.score.score.draw", lambda *_: [])

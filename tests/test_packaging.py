"""The layout: three packages, one distribution, one direction of imports, no shadowed names."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.import_graph import circles, import_graph

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("genie_robotics", "genie_datasets", "genie_eval")


def python(code: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("folder", ["datasets", "eval", "tests/datasets"])
def test_folders_that_would_shadow_others_have_no_init(folder):
    assert not (ROOT / folder / "__init__.py").exists()


def test_editable_install_imports_from_anywhere(tmp_path):
    done = python(f"import {', '.join(PACKAGES)}; print(genie_robotics.__file__)", tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).parent == ROOT / "genie_robotics"


def test_hugging_face_datasets_is_not_shadowed_in_the_repository_root():
    pytest.importorskip("datasets.arrow_dataset", reason="Hugging Face datasets is not installed")
    done = python("import datasets; print(datasets.Dataset.from_dict({'a': [1, 2]}).num_rows, datasets.__file__)", ROOT)
    assert done.returncode == 0, done.stderr
    rows, path = done.stdout.split(maxsplit=1)
    assert rows == "2"
    assert ROOT / "datasets" not in Path(path.strip()).parents


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: setuptools writes beside its sources, and test processes would meet there."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for part in ("genie_robotics", "datasets", "eval"):
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    for package in PACKAGES:
        inside = {n for n in names if n.startswith(f"{package}/")}
        home = next(p for p in (ROOT, ROOT / "datasets", ROOT / "eval") if (p / package).is_dir())
        files = (p for p in (home / package).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        assert inside == {str(p.relative_to(home)) for p in files}


def test_the_wheel_works_without_the_repository(wheel, tmp_path):
    """Plays, serves its page and writes a report from a folder that holds the wheel's files and nothing else of us."""
    site, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True, timeout=300)
    code = f"""
import sys
sys.path.insert(0, {str(site)!r})
import numpy as np
import genie_datasets, genie_eval, genie_robotics
for package in (genie_datasets, genie_eval, genie_robotics):
    assert package.__file__.startswith({str(site)!r}), package.__file__
from genie_robotics import Genie
from genie_robotics.cli import main
from genie_robotics.player.commands import PlayOptions, make_player
from genie_robotics.player.server import make_app
from starlette.testclient import TestClient
world = Genie.from_pretrained("nano-tabletop").start(np.full((64, 64, 3), 128, np.uint8))
assert world.step(3).shape == (64, 64, 3)
player = make_player(PlayOptions(run="nano-tabletop"))
with TestClient(make_app(player, ["testserver"])) as client:
    for page in ("/", "/player.js", "/player.css", "/starts/0.png"):
        assert client.get(page).status_code == 200, page
rng = np.random.default_rng(0)
codes = rng.integers(8, size=400)
motion = np.eye(8)[codes][:, :3] + rng.normal(0, .1, (400, 3))
np.savez("latents.npz", codes=codes, motion=motion, trajectory=np.repeat(np.arange(20), 20),
         step=np.tile(np.arange(20), 20))
assert main(["score", "latents.npz", "--out", "report", "--draws", "100"]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=away, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (away / "report" / "report.html").stat().st_size > 10_000


def test_imports_run_one_way():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kept, 0 broken" in done.stdout


def test_importing_the_library_does_not_import_what_it_may_not_need(tmp_path):
    heavy = ("tensorflow", "tensorflow_datasets", "rlds", "mujoco", "matplotlib", "sklearn")
    code = (
        "import sys, genie_robotics, genie_datasets, genie_eval; genie_robotics.Genie; genie_datasets.ClipDataset; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = python(code, tmp_path)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_no_modules_import_each_other_in_a_circle():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    graph = import_graph()
    assert len(graph) > 300
    assert circles(graph) == []

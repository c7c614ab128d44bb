"""The layout of DESIGN section 2: three packages, one distribution, one direction, nobody's names shadowed."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


def test_the_wheel_holds_the_three_packages_and_nothing_else(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    for package in PACKAGES:
        inside = {n for n in names if n.startswith(f"{package}/") and n.endswith(".py")}
        home = next(p for p in (ROOT, ROOT / "datasets", ROOT / "eval") if (p / package).is_dir())
        assert inside == {str(p.relative_to(home)) for p in (home / package).rglob("*.py")}
    assert {"genie_eval/report/report.html", "genie_eval/report/report_schema.json"} <= set(names)


def test_imports_run_one_way():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 kept, 0 broken" in done.stdout


def test_importing_the_library_does_not_import_what_it_may_not_need(tmp_path):
    heavy = ("tensorflow", "tensorflow_datasets", "rlds", "mujoco", "matplotlib", "sklearn")
    code = (
        "import sys, genie_robotics, genie_datasets, genie_eval; genie_robotics.Genie; genie_datasets.ClipDataset; "
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = python(code, tmp_path)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr

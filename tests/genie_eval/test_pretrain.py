"""`pretrain`, the judge of a shipped world, and its model card."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from genie_datasets.base.errors import UserError
from genie_eval import evaluation
from genie_eval.commands import evaluate
from genie_eval.pretrain import commands as making
from genie_eval.pretrain.export import LARGEST, export_world, folder_bytes
from genie_eval.pretrain.model_card import card
from genie_eval.pretrain.recipes import RECIPES, recipe, smoke
from genie_robotics import Genie
from genie_robotics.pretrained import WORLDS
from genie_robotics.training.config import training_preset
from genie_robotics.training.stages import stages_of
from tests.genie_robotics.conftest import random_genie, tiny_config

NAME = "nano-tabletop"
REFERENCE = Path(__file__).resolve().parents[2] / "eval" / "reference" / "nano-tabletop" / "report.json"


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """run, judge, other: runs of three seeds; world: run and judge exported, and installed under its name."""
    for seed, name in enumerate(("run", "judge", "other")):
        random_genie(tiny_config(), seed).save_pretrained(tmp_path / name)
    export_world(tmp_path / "run", tmp_path / "judge", tmp_path / "world")
    monkeypatch.setitem(WORLDS, NAME, tmp_path / "world")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def asked(monkeypatch) -> list:
    """The judges that the evaluation is called with; nothing is measured."""
    judges: list = []
    answer = json.loads(REFERENCE.read_text())
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, judge=None, **__: judges.append(judge) or answer)
    return judges


def same(a: Genie, b: Genie) -> bool:
    ours, theirs = (m.latent_action.encoder_in.weight for m in (a, b))
    return (ours - theirs).abs().max() < 1e-3


@pytest.mark.parametrize("run", [NAME, "world"])
def test_a_shipped_world_is_judged_by_its_own_judge_unless_another_is_given(run, folders, asked, tabletop_rlds):
    argv = [run, "--data", str(tabletop_rlds), "--out", "out"]
    assert evaluate(argv) == 0
    assert evaluate([*argv, "--judge", "other"]) == 0
    own, given = asked
    assert own.components == ("latent_action",)
    assert same(own, Genie.from_pretrained("judge"))
    assert same(given, Genie.from_pretrained("other"))


def test_a_trained_run_has_no_judge_and_can_be_given_a_shipped_one(folders, asked, tabletop_rlds):
    argv = ["other", "--data", str(tabletop_rlds), "--out", "out"]
    assert evaluate(argv) == 0
    assert evaluate([*argv, "--judge", NAME]) == 0
    assert asked[0] is None
    assert same(asked[1], Genie.from_pretrained("run"))


def test_a_world_and_its_folder_are_the_same_run(folders):
    with pytest.raises(UserError, match="agrees with itself"):
        evaluate([NAME, "--data", "x", "--out", "out", "--judge", "world"])
    with pytest.raises(UserError, match="list each other run once"):
        evaluate(["other", "--data", "x", "--out", "out", "--seeds", "world", NAME])


@pytest.mark.parametrize("plan", RECIPES.values(), ids=list(RECIPES))
def test_recipes_test_on_scenes_of_their_own_and_train_every_stage(plan):
    assert plan.name in WORLDS
    assert plan.test.seed not in {data.seed for data in plan.data}
    assert plan.data[0].family == plan.test.family
    assert plan.data[0].action_weight > 0
    assert len({data.family for data in plan.data}) == len(plan.data)  # each has a folder of its family's name
    assert plan.judge_seed != plan.seed
    assert plan.test.episodes["test"] >= 200  # the least that the statistics need
    assert set(stages_of(training_preset(plan.preset).mode)) <= set(plan.steps)
    small = smoke(plan)
    assert small.smoke
    assert sum(small.steps.values()) + small.judge_steps < 50


def test_an_unknown_world_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="unknown world 'small-kitchen'; expected one of: nano-tabletop"):
        making.main(["small-kitchen", "--out", str(tmp_path)])
    with pytest.raises(UserError, match="--minutes must be above 0"):
        making.main([NAME, "--out", str(tmp_path), "--minutes", "0"])


def test_training_follows_the_recipe_and_minutes_are_shared_with_the_judge(monkeypatch, tmp_path):
    plans = []
    monkeypatch.setattr("genie_robotics.training.run.train_run", lambda run, data, split, plan: plans.append(plan))
    plan = recipe(NAME)
    for minutes in (None, 100.0):
        making.train(plan, SimpleNamespace(), tmp_path, ["latent_action"], minutes, "cpu")
        making.train(plan, SimpleNamespace(), tmp_path, ["tokenizer", "dynamics"], minutes, "cpu")
        making.train(plan, SimpleNamespace(), tmp_path, ["latent_action"], minutes, "cpu", judge=True)
    actions, tokenizer, dynamics, judge, *timed = plans
    for made in (actions, tokenizer, dynamics):
        assert made.training.stage(made.stage).steps == plan.steps[made.stage]
        assert (made.loop.seed, made.minutes) == (plan.seed, None)
    assert (judge.stage, judge.loop.seed, judge.minutes) == ("latent_action", plan.judge_seed, None)
    assert judge.training.latent_action.steps == plan.judge_steps
    assert dynamics.model == judge.model
    assert all(getattr(dynamics.model.tokenizer, name) == value for name, value in plan.tokenizer.items())
    assert sum(made.minutes for made in timed) == pytest.approx(100)
    assert timed[3].minutes == pytest.approx(timed[0].minutes)  # the judge trains as long as the world's


def test_data_of_another_recipe_are_refused(monkeypatch, tmp_path, tabletop_rlds):
    plan = recipe(NAME)
    shutil.copytree(tabletop_rlds.parents[1], tmp_path / "data")
    with pytest.raises(UserError, match=r"holds \{.*\} episodes, expected .*another --out"):
        making.tabletop_source(plan.data[0], tmp_path / "data")
    source = making.tabletop_source(replace(plan.data[0], episodes={"train": 4, "test": 4}), tmp_path / "data")
    assert source.split("test").num_episodes == 4


def test_a_world_is_measured_once_and_again_when_it_has_changed(folders, asked, make_video):
    plan, source = recipe(NAME), make_video()
    exported = json.loads((folders / "world" / "config.json").read_text())["exported"]
    written = folders / "report"

    def measure(exported):
        written.mkdir(exist_ok=True)
        (written / "report.json").write_text("{}")  # the evaluation leaves it
        making.evaluate_world(plan, source, folders / "world", written, exported)
        return len(asked)

    assert measure(exported) == 1
    assert measure(exported) == 1
    assert measure({**exported, "weights": "bfloat16"}) == 2
    assert same(asked[0], Genie.from_pretrained("judge"))
    for config in folders / "world" / "config.json", folders / "world" / "dynamics" / "config.json":
        config.write_text(re.sub('"temperature": [0-9.]+', '"temperature": 0.5', config.read_text()))
    assert measure(exported) == 3
    (written / "evaluated.json").unlink()  # interrupted before the end
    assert measure(exported) == 4


def test_the_card_agrees_with_the_report(folders):
    report, plan = json.loads(REFERENCE.read_text()), recipe(NAME)
    text = card(plan, report, folders / "world", folders / "run", folders / "run", folders / "judge")
    for heading in (
        "Model details", "Uses", "Training data", "Training procedure", "Evaluation",
        "Bias, risks and limitations", "Environmental impact", "Technical specifications", "Citation",
    ):  # fmt: skip
        assert f"\n## {heading}\n" in text
    metric = report["metrics"]["grounding_r2"]
    low, high = metric["ci95"]
    expected = rf"`grounding_r2` \| {metric['value']:.2f} \[{low:.2f}, {high:.2f}\] \| 0\.00 \| {metric['oracle']:.2f}"
    assert re.search(expected, text)
    assert all(f"`{name}`" in text for name in report["metrics"])
    assert all(limit in text for limit in report["limits"])
    assert all(asked["because"] in text for asked in report["summary"]["questions"])
    assert "license: apache-2.0" in text
    for data in plan.data:
        assert (
            f"| `{data.family}` | {data.episodes['train']} | {data.scenes} | {data.seed} | {data.weight:.2f} |" in text
        )
    assert "not recorded" in text  # these runs were never trained
    assert "SMOKE" not in text
    assert "SMOKE" in card(smoke(plan), report, folders / "world", folders / "run", folders / "run", folders / "judge")


@pytest.mark.slow
def test_one_command_makes_a_world_and_resumes_after_an_interruption(tmp_path, monkeypatch, capsys):
    """Interrupted after the training; the second call trains and simulates nothing and completes the world."""
    argv = [NAME, "--out", str(tmp_path), "--smoke", "--device", "cpu"]

    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("genie_eval.pretrain.export.export_world", cut)
        with pytest.raises(KeyboardInterrupt):
            making.main(argv)
    assert not (tmp_path / "world").exists()
    capsys.readouterr()
    assert making.main(argv) == 0
    said = capsys.readouterr().out
    assert said.count("already trained") == 4
    world = tmp_path / "world"
    assert folder_bytes(world) < LARGEST
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["run"]["path"] == NAME
    assert report["data"]["n_trajectories"] == 3
    # the judge was used
    assert report["metrics"]["command_bits"]["judges"]["independent"]["bits"] is not None
    text = (world / "MODEL_CARD.md").read_text()
    assert "SMOKE RUN" in text
    assert "| dynamics | 6 |" in text
    before = {path: path.read_bytes() for path in world.rglob("*.safetensors")}
    monkeypatch.setitem(WORLDS, NAME, world)
    monkeypatch.chdir(tmp_path)
    assert Genie.from_pretrained(NAME).config.preset == "nano"
    assert making.main(argv) == 0
    assert "not measured again" in capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in before.items())

"""`genie-robotics ablate` from end to end: two tiny variants on the moving square, interrupted and rerun."""

import json

import numpy as np
import pytest

from genie_datasets.base.errors import UserError
from genie_datasets.sources.subset import some_episodes
from genie_eval.ablation import commands
from genie_eval.ablation import trial as trials
from genie_eval.ablation.commands import AblateOptions, ablate, main, parse_seeds, without_selection
from genie_eval.ablation.plan import resolve, shared_plan
from genie_eval.ablation.studies import LATENT_ACTION, PIXELS_OR_TOKENS, STUDIES, find_study
from genie_eval.ablation.study import Study, Variant, read_study
from genie_robotics.models.presets import preset
from genie_robotics.pretrained import locate
from genie_robotics.training.trainer import Trainer
from tests.genie_robotics.conftest import tiny_sizes

TINY = tiny_sizes() | {
    "image_size": [32, 32],
    "clip_length": 8,
    "tokenizer.patch_size": 8,
    "tokenizer.quantizer.num_codes": 32,
    "latent_action.quantizer.num_codes": 5,
    "dynamics.maskgit_steps": 2,
}
VARIANTS = (
    Variant("ours", "as it is"),
    Variant("action-add", "the action is added", {"latent_action.action_input": "add"}),
)
STUDY = Study("tiny", VARIANTS, "Does it run?", set=TINY, steps=8)


@pytest.fixture
def run(make_video, tmp_path, monkeypatch):
    """Runs a study on the moving square into a folder below tmp_path; returns that folder."""
    source = make_video(episodes=12, length=16)

    def go(study=STUDY, out="out", seeds=(0,), **options):
        folder = tmp_path / out
        asked = AblateOptions(study="tiny", out=folder, trajectories=12, clips=4, save_every=3, **options)
        ablate(study, source, source, asked, list(seeds), "genie-robotics ablate tiny")
        return folder

    return go


def results(folder):
    """The results without entries that depend on the clock."""
    found = json.loads((folder / "results.json").read_text())
    for row in found["variants"]:
        for cost in row["cost"].values():
            del cost["ms_a_step"]
    return found


def test_an_interrupted_study_gives_the_same_table_when_rerun(run, monkeypatch):
    uncut = results(run(out="uncut"))
    step, calls = Trainer.train_step, []

    def cut(trainer, *args):
        calls.append(trainer.step)
        if len(calls) == 13:  # in the second variant, after a checkpoint
            raise KeyboardInterrupt
        return step(trainer, *args)

    monkeypatch.setattr(Trainer, "train_step", cut)
    with pytest.raises(KeyboardInterrupt):
        run(out="cut")
    folder = run(out="cut")
    assert results(folder) == uncut
    assert calls == [*range(8), *range(5), *range(3, 8)]  # it resumed from the checkpoint at step 3
    text = (folder / "table.md").read_text()
    assert "no claim: 1 seed" in text
    assert "| **ours**: as it is | 1 |" in text
    assert "*flow_kmeans*" in text


def test_finished_trials_are_not_run_again(run, monkeypatch):
    folder = run(only="ours")
    assert results(folder)["variants"][1]["seeds"] == []
    monkeypatch.setattr(trials, "measure", lambda *_: pytest.fail("a measured trial was measured again"))
    monkeypatch.setattr(Trainer, "train_step", lambda *_: pytest.fail("a trained trial was trained again"))
    before = results(folder)
    assert results(run(only="ours")) == before
    assert results(run(only_table=True)) == before


def test_a_trial_that_another_process_runs_is_skipped(run, capsys):
    from genie_robotics.run_folder import locked

    with locked(run(only="ours") / "cells/action-add/seed0"):
        folder = run()
    assert "action-add, seed 0: another process is running this trial" in capsys.readouterr().out
    assert results(folder)["variants"][1]["seeds"] == []


def test_other_options_in_the_same_folder_are_refused(run):
    run(only="ours")
    with pytest.raises(
        UserError, match=r"training.latent_action.steps: 8 / 9\); rerun with those, or pass another --out"
    ):
        run(only="ours", steps=9)


def test_dreams_share_one_tokenizer_and_one_latent_action_model(run):
    variants = (Variant("ours"), Variant("add", "added", {"dynamics.action_input": "add"}))
    study = Study("dreams", variants, stages=("dynamics",), measure=("dreams", "commands"), set=TINY, steps=4)
    folder = run(study, seeds=(0, 1))
    assert len(list((folder / "shared").iterdir())) == 2
    weights = {(p.parent.name, p.read_bytes()) for p in folder.glob("cells/*/seed*/run/*/model.safetensors")}
    assert sorted(name for name, _ in weights) == ["dynamics"] * 4 + ["latent_action", "tokenizer"]
    row = results(folder)["variants"][1]
    for name in ("delta_psnr_t4", "dream_psnr", "dream_psnr_t15", "tokenizer_psnr", "command_bits"):
        assert len(row["metrics"][name]["values"]) == 2, name
    # both variants share one tokenizer, so its figures are equal
    assert row["metrics"]["tokenizer_psnr"]["difference"]["value"] == 0
    assert row["metrics"]["dream_psnr"]["difference"]["paired"]


def test_components_of_a_trained_run_stand_for_shared_ones(run):
    study = Study("dreams", (Variant("ours"),), stages=("dynamics",), measure=("dreams",), set=TINY, steps=4)
    first = run(study, out="first")
    given = first / "cells/ours/seed0/run"
    second = run(study, out="second", shared=given)
    assert not (second / "shared").exists()
    assert results(first)["variants"] == results(second)["variants"]


def test_a_variant_starts_from_another_run_of_its_seed(run, tmp_path, monkeypatch):
    study = Study("first", (Variant("ours"),), set=TINY, steps=4)
    for seed in (0, 1):
        (tmp_path / f"sim{seed}").symlink_to(run(study, out="first", seeds=(seed,)) / f"cells/ours/seed{seed}/run")
    inits = []
    whole = trials.train_run
    monkeypatch.setattr(trials, "train_run", lambda *a: inits.append(a[-1].init) or whole(*a))
    after = Variant("after", init=str(tmp_path / "sim{seed}"))
    folder = run(Study("then", (Variant("alone"), after), set=TINY, steps=4), out="then", seeds=(0, 1))
    assert inits == [None, tmp_path / "sim0", None, tmp_path / "sim1"]
    stored = json.loads((folder / "cells/after/seed1/run/config.json").read_text())
    assert stored["data"]["init"]["latent_action"]["from"] == str(tmp_path / "sim1")


def test_without_true_motion_codes_are_measured_against_optical_flow(make_video, tmp_path):
    unknown = make_video(episodes=11, length=16, known=False)
    asked = AblateOptions(study="tiny", out=tmp_path / "out", trajectories=11, clips=4)
    found = ablate(STUDY, make_video(episodes=12, length=16), unknown, asked, [0], "genie-robotics ablate tiny")
    assert found["about"]["motion"] == "flow"
    assert found["about"]["baselines"]["oracle"]["grounding_skill"] == pytest.approx(1)
    metrics = found["variants"][0]["metrics"]
    assert metrics["grounding_skill"]["mean"] is not None
    assert "linear_r2" not in metrics or metrics["linear_r2"]["mean"] is None
    assert "measured against OPTICAL FLOW, which is only a proxy" in (tmp_path / "out" / "table.md").read_text()


# quantization must start before the dynamics learn from the codes
EARLY = {
    **TINY,
    "latent_action.quantizer.vq.quantize_after_steps": 2,
    "latent_action.quantizer.vq.freeze_after_init": False,
}


@pytest.mark.slow
def test_every_mode_has_its_stages_and_budget(run):
    modes = tuple(Variant(mode, mode=mode) for mode in ("frozen", "cotrain", "end_to_end"))
    warm = Variant("warmup", mode="warmup", steps={"latent_action": 0.5, "joint": 0.75})
    stages, groups = ("latent_action", "dynamics", "joint"), ("codes", "dreams")
    folder = run(Study("modes", (*modes, warm), stages=stages, measure=groups, set=EARLY, steps=8))
    rows = {row["name"]: row for row in results(folder)["variants"]}
    assert [path.name[:9] for path in (folder / "shared").iterdir()] == ["tokenizer"]
    for name, row in rows.items():
        assert row["metrics"]["delta_psnr_t4"]["mean"] is not None, name
        assert row["metrics"]["linear_r2"]["mean"] is not None, name
    budget = {name: {s: c["steps"] for s, c in row["cost"].items()} for name, row in rows.items()}
    assert "budgets: frozen: latent_action 8 steps of 4 clips, dynamics 8" in (folder / "table.md").read_text()
    assert budget["warmup"] == {"latent_action": 4, "joint": 6}
    assert budget["cotrain"] == {"joint": 8}
    assert budget["frozen"] == {"latent_action": 8, "dynamics": 8}


def test_a_world_of_the_package_is_used_for_components_with_its_configuration():
    world, model = locate("nano-tabletop"), preset("nano")
    assert trials.has_component(world, "tokenizer", model)
    assert trials.has_component(world, "latent_action", model), (
        "only its encoder is there, which is all that reading needs"
    )
    model.latent_action.width = 64
    assert not trials.has_component(world, "latent_action", model)


def test_latent_actions_of_tokens_use_the_shared_tokenizer(run):
    tokens = Variant("tokens", set={"latent_action.frame_space": "tokens"})
    folder = run(Study("inputs", (tokens,), set=EARLY, steps=4))
    run_folder = folder / "cells/tokens/seed0/run"
    (shared,) = (folder / "shared").iterdir()
    weights = "tokenizer/model.safetensors"
    assert (run_folder / weights).read_bytes() == (shared / "run" / weights).read_bytes()
    assert results(folder)["variants"][0]["metrics"]["linear_r2"]["mean"] is not None


def test_labels_are_drawn_for_every_seed(make_video, tmp_path, monkeypatch):
    from genie_datasets.clips import labels as drawing

    source = make_video(episodes=4, length=9)
    bench = trials.StudyRun(STUDY, tmp_path, source, "train", 4)
    corners = next(iter(source.splits.values())).corners
    monkeypatch.setattr(drawing, "read_actions", lambda split, e: np.diff(corners[e], axis=0, append=0.0))
    some = Variant("some", labels=0.25)
    paths = [trials.labels_file(bench, source, some, seed) for seed in (0, 1)]
    drawn = [drawing.Labels.load(path) for path in paths]
    assert [len(d) for d in drawn] == [8, 8]  # a quarter of 4 x 8 transitions
    assert drawn[0].digest != drawn[1].digest
    assert trials.labels_file(bench, source, some, 0) == paths[0]
    few = trials.labels_file(bench, some_episodes(source, "train", 2, 0), Variant("few", labels=0.25, episodes=2), 0)
    assert few != paths[0]
    assert len(drawing.Labels.load(few)) == 4


# ---- studies and options
@pytest.mark.parametrize("name", STUDIES)
def test_the_studies_of_the_package_can_be_built(name):
    study = STUDIES[name]
    resolved = {}
    for variant in study.variants:
        resolved[variant.name] = resolve(study, variant, 100)
    assert study.reference in resolved
    changed = {str((plan.model, plan.training, variant)) for variant, plan in resolved.items()}
    assert len(changed) == len(resolved)


def test_paper_and_ours_differ_as_they_say():
    paper = resolve(LATENT_ACTION, LATENT_ACTION.variant("paper"), 100).model.latent_action
    assert (paper.patch_size, paper.input_diff, paper.predict_diff) == (16, False, False)
    assert (paper.encoder_history, paper.decoder_history, paper.action_input) == (True, True, "add")
    assert (
        paper.quantizer.vq.quantize_after_steps,
        paper.quantizer.vq.freeze_after_init,
        paper.quantizer.vq.whiten,
    ) == (0, False, 0)
    ours = resolve(LATENT_ACTION, LATENT_ACTION.variant("ours"), 100).model.latent_action
    assert ours.quantizer.vq.freeze_after_init


def test_tokens_need_a_tokenizer_that_all_share():
    pixels, tokens = (resolve(PIXELS_OR_TOKENS, variant, 100) for variant in PIXELS_OR_TOKENS.variants)
    assert pixels.shared == tokens.shared == ("tokenizer",)
    assert resolve(LATENT_ACTION, LATENT_ACTION.variant("ours"), 100).shared == ()
    assert resolve(LATENT_ACTION, LATENT_ACTION.variant("input-tokens"), 100).shared == ("tokenizer",)
    of_both = [shared_plan(PIXELS_OR_TOKENS, v, "tokenizer", 100) for v in PIXELS_OR_TOKENS.variants]
    assert of_both[0].model.tokenizer == of_both[1].model.tokenizer
    assert of_both[0].model == of_both[1].model  # equal random streams, so the order of training does not matter


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"latent_action.colour": 1}, "latent_action.colour: there is no such field"),
        ({"latent_action": {}}, "latent_action: there is no such field"),
        ({"latent_action.action_input": 3}, "action_input cannot be 3; expected a value of the same type as 'adaln'"),
        ({"latent_action.action_input": "max"}, "action_input must be one of add, prepend, adaln, got 'max'"),
        ({"latent_action.input_diff": 1}, "latent_action.input_diff cannot be 1"),
        ({"training.latent_action.batch_size": 0}, "batch-size must be at least 1"),
        ({"training.colour.steps": 1}, "training.colour.steps: there is no such field"),
        ({"latent_action.patch_size": 7}, "must be a multiple of --latent-action.patch-size 7"),
    ],
)
def test_a_field_that_cannot_be_is_one_line(change, expected):
    with pytest.raises(UserError, match=expected) as caught:
        resolve(STUDY, Variant("odd", set=change), 4)
    assert "\n" not in str(caught.value)


def test_dreams_without_a_dynamics_are_refused():
    study = Study("odd", VARIANTS, stages=("latent_action",), measure=("dreams",))
    with pytest.raises(UserError, match="add dynamics or joint to its stages"):
        resolve(study, VARIANTS[0], 4)


def test_a_study_of_ones_own_in_json_and_toml(tmp_path):
    content = {
        "steps": 7,
        "variants": [{"name": "a"}, {"name": "b", "set": {"latent_action.patch_size": 16}, "labels": 0.5}],
    }
    (tmp_path / "mine.json").write_text(json.dumps(content))
    (tmp_path / "mine.toml").write_text(
        'steps = 7\n[[variants]]\nname = "a"\n[[variants]]\nname = "b"\nlabels = 0.5\n'
        'set = { "latent_action.patch_size" = 16 }\n'
    )
    of_json, of_toml = (find_study(str(tmp_path / f"mine.{kind}")) for kind in ("json", "toml"))
    assert of_json == of_toml
    assert (of_json.name, of_json.reference, of_json.stages) == ("mine", "a", ("latent_action",))
    assert resolve(of_json, of_json.variants[1], 7).model.latent_action.patch_size == 16


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "neither JSON nor TOML"),
        ("[]", "holds no study"),
        ('{"variants": []}', "it has no variants"),
        ('{"variants": [{"name": "a"}], "colour": 1}', "unknown field 'colour'; a study has name"),
        ('{"variants": [{"name": "a", "colour": 1}]}', "unknown field 'colour'; a variant has name"),
        ('{"variants": [{"what": "a"}]}', "a variant has no name"),
        ('{"variants": [{"name": "a"}, {"name": "a"}]}', "two variants are called 'a'"),
        ('{"variants": [{"name": "../a"}]}', "cannot be a folder's name"),
        ('{"variants": [{"name": "a"}], "reference": "b"}', "unknown reference 'b'; its variants are: a"),
        ('{"variants": [{"name": "a"}], "measure": ["beauty"]}', "unknown group of metrics 'beauty'"),
        ('{"variants": [{"name": "a"}], "steps": "many"}', "steps must be of type int, got 'many'"),
        ('{"variants": [{"name": "a", "labels": 5}]}', "labels must be a fraction from 0 to 1"),
    ],
)
def test_a_file_that_is_no_study_is_one_line(text, expected, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        read_study(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["colours"], "unknown study 'colours'; expected one of: latent-action, codes"),
        (["codes", "--data", "x"], "needs --out DIR"),
        (["codes", "--data", "x", "--out", "o", "--seeds", "0,a"], "--seeds must be whole numbers separated by commas"),
        (["codes", "--data", "x", "--out", "o", "--seeds", "1,1"], "--seeds must be different numbers"),
        (["codes", "--data", "x", "--out", "o", "--steps", "0"], "--steps must be at least 1"),
        (["codes", "--data", "nowhere", "--out", "o"], "nowhere"),
        (["codes", "--data", "nowhere", "--out", "o", "--shared", "absent"], "is no run folder"),
        (["none.json", "--data", "x", "--out", "o"], "none.json cannot be read"),
        (["codes", "--data", "x", "--out", "o", "--held-out-include", "*a*"], "--held-out-include needs --held-out"),
    ],
)
def test_wrong_options_are_one_line(argv, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=expected) as caught:
        main(argv)
    assert "\n" not in str(caught.value)


def test_held_out_episodes_are_chosen_by_their_own_glob(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(AblateOptions, "open", lambda self, path: asked.append((path, self.include, self.exclude)))
    monkeypatch.setattr(commands, "ablate", lambda *_: (tmp_path / "table.md").write_text(""))
    argv = ["codes", "--data", "d", "--out", str(tmp_path), "--exclude", "*scene3*"]
    for more in ([], ["--held-out", "e"], ["--held-out", "e", "--held-out-include", "*scene3*"]):
        main([*argv, *more])
    all_but = ("d", None, "*scene3*")
    assert asked == [all_but, all_but, ("e", None, None), all_but, ("e", "*scene3*", None)]


def test_a_variant_that_is_not_there(run):
    with pytest.raises(UserError, match="no variant 'theirs'; its variants are: ours, action-add"):
        run(only="ours,theirs")


def test_studies_are_listed(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in STUDIES)


def test_the_command_in_the_table_is_for_all_trials():
    argv = ["codes", "--only", "K8", "--data", "d", "--seeds=0", "--out", "o", "--only-table", "--steps", "5"]
    assert without_selection(argv) == ["codes", "--data", "d", "--out", "o", "--steps", "5"]
    assert parse_seeds("2,0") == [2, 0]

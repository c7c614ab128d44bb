"""Arguments of Genie and World: integers of any type, arrays of any layout, and mistakes that are one line."""

import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import genie_datasets
from genie_datasets.base.errors import UserError
from genie_robotics.genie import Genie
from genie_robotics.models.sampling import uniform
from tests.genie_robotics.conftest import random_genie, tiny_config

SEEDS = st.integers(-(2**128) + 1, 2**128 - 1)
INT_TYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


@pytest.fixture(scope="module")
def model() -> Genie:
    return random_genie(tiny_config())


@pytest.fixture(scope="module")
def video() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (3, 8, 16, 16, 3), np.uint8)


def noise(seed, sample: int = 0) -> bytes:
    return uniform(seed, [sample], 0, (4,), torch.device("cpu")).numpy().tobytes()


@given(st.sets(st.tuples(SEEDS, st.integers(0, 2**64 - 1)), min_size=2, max_size=8))
def test_each_seed_and_sample_has_its_own_noise(pairs):
    assert len({noise(seed, sample) for seed, sample in pairs}) == len(pairs)


def test_similar_seeds_have_their_own_noise():
    seeds = [s + d for s in (0, 2**53, 2**63, 2**64, 2**127, -(2**63), -(2**64)) for d in (-2, -1, 0, 1, 1000)]
    seeds += [2**128 - 1, 1 - 2**128]
    assert len({noise(seed) for seed in seeds}) == len(set(seeds))


def test_noise_does_not_change_from_release_to_release():
    expected = torch.tensor([[0.258175552, 0.353651106, 0.149833977]])
    assert torch.equal(uniform(3, [1], 2, (3,), torch.device("cpu")), expected)


@given(st.sampled_from(INT_TYPES), st.data())
def test_a_seed_of_any_integer_type_is_the_int(kind, data):
    limits = np.iinfo(kind)
    seed = data.draw(st.integers(int(limits.min), int(limits.max)))
    array = np.array(seed, kind)
    for same in (array[()], array, torch.from_numpy(array.reshape(1))[0]):
        assert noise(same) == noise(seed)


def test_worlds_take_any_seed(model, video):
    world = model.start(video[0, 0], seed=np.int64(-3))
    assert world.seed == -3
    assert type(world.seed) is int
    assert torch.equal(world.step(1), model.generate(video[:1, :1], [[1]], seed=-3)[0, 0])
    assert world.fork(seed=np.uint64(2**64 - 1)).seed == 2**64 - 1


@pytest.mark.parametrize("bad", [1.5, np.float32(1), "3", None, True, np.bool_(True), torch.tensor(True), [1], 2**128])
def test_other_seeds_are_refused(model, video, bad):
    with pytest.raises(UserError, match="^seed must"):
        model.start(video[0, 0], seed=bad)


def test_remedies_for_seeds_work():
    with pytest.raises(UserError, match=re.escape("pass seed % 2**128")):
        uniform(2**130 + 5, [0], 0, (4,), torch.device("cpu"))
    assert noise((2**130 + 5) % 2**128) == noise(5)


def layouts(array: np.ndarray) -> dict:
    wide = np.zeros((*array.shape[:-1], 6), array.dtype)
    wide[..., ::2] = array
    read_only = array.copy()
    read_only.setflags(write=False)
    return {
        "flipped twice": np.ascontiguousarray(array[..., ::-1])[..., ::-1],
        "Fortran": np.asfortranarray(array),
        "slice": wide[..., ::2],
        "read-only": read_only,
        "torch": torch.from_numpy(array.copy()),
        "permuted torch": torch.from_numpy(np.moveaxis(array, -1, 0).copy()).movedim(0, -1),
        "list": array.tolist(),
        "list of arrays": list(array),
    }


def test_frames_of_any_layout_are_the_same_frames(model, video, tmp_path):
    clips = video[:, :3]
    expected, started = model.infer_actions(clips), model.start(clips).frame
    np.save(tmp_path / "clips.npy", clips)
    several = layouts(clips) | {"memory map": np.load(tmp_path / "clips.npy", mmap_mode="r")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, frames in several.items():
            before = np.asarray(frames).copy()
            assert torch.equal(model.infer_actions(frames), expected), name
            assert torch.equal(model.start(frames).frame, started), name
            assert (np.asarray(frames) == before).all(), name
        picture = model.start(clips[0, 0]).frame
        for name, frame in layouts(clips[0, 0]).items():
            assert torch.equal(model.start(frame).frame, picture), name


@pytest.mark.parametrize("kind", [*INT_TYPES, ">i4", ">u8"])
def test_codes_and_tokens_of_any_integer_type(model, video, kind):
    codes, start = np.array([[0, 1], [2, 3], [3, 1]]), video[:, :1]
    dream = model.generate(start, codes)
    assert torch.equal(model.generate(start, codes.astype(kind)), dream)
    if kind in INT_TYPES:
        assert torch.equal(model.generate(start, torch.from_numpy(codes.astype(kind))), dream)
    tokens = model.tokenize(start)
    assert torch.equal(model.detokenize(tokens.numpy().astype(kind)), model.detokenize(tokens))
    world = model.start(video[0, 0])
    stepped = model.start(video[0, 0]).step(2)
    assert torch.equal(world.fork().step(np.array(2, kind)), stepped)
    assert torch.equal(world.fork().step(np.array([2], kind)[0]), stepped)
    assert torch.equal(world.preview(np.array([2, 0], kind))[0], stepped)


def test_codes_of_other_containers(model, video):
    world, stepped = model.start(video[0, 0]), model.start(video[0, 0]).step(2)
    for code in (2, [2], (2,), torch.tensor(2), torch.tensor([2]), [np.int8(2)], [torch.tensor(2)], range(2, 3)):
        assert torch.equal(world.fork().step(code), stepped)
    assert torch.equal(world.preview(range(4)), world.preview((0, 1, 2, 3)))
    assert world.preview([]).shape == (0, 16, 16, 3)
    assert model.generate(video[:1, :1], [[]]).shape == (1, 0, 16, 16, 3)


@pytest.mark.parametrize(
    "bad", ["left", None, 1.0, -1, 4, True, np.array([True]), [[1]], [1, 2], [[1], [2, 3]], 2**70, object(), {1}, b"1"]
)
def test_codes_that_are_refused(model, video, bad):
    world = model.start(video[0, 0])
    with pytest.raises(UserError, match=r"^codes? must be .*; pass "):
        world.step(bad)
    assert len(world.states) == 1


@pytest.mark.parametrize("bad", [3, [[1]], [4], "up", [0.5]])
def test_previews_that_are_refused(model, video, bad):
    with pytest.raises(UserError, match="^codes must be .*; pass "):
        model.start(video[0, 0]).preview(bad)
    with pytest.raises(UserError, match="one dream, got 3; start one"):
        model.start(video[:, :1]).preview([1])


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("maskgit_steps", bad) for bad in (0, -1, 2.5, "4", True, np.nan)),
        *(("temperature", bad) for bad in (np.nan, np.inf, -0.1, "hot", True, [1.0], 10**400, 1j)),
    ],
)
def test_settings_that_are_refused(model, video, name, bad):
    with pytest.raises(UserError, match=f"^{name} must be .*; leave it out to use the model's own"):
        model.start(video[0, 0], **{name: bad})


def test_settings_of_numpy_and_torch(model, video):
    plain = model.start(video[0, 0], maskgit_steps=2, temperature=0.5).step(1)
    for steps, temperature in ((np.uint8(2), np.float32(0.5)), (torch.tensor(2), torch.tensor(0.5))):
        assert torch.equal(model.start(video[0, 0], maskgit_steps=steps, temperature=temperature).step(1), plain)


def test_undo_takes_back_played_actions_and_no_more(model, video):
    world = model.start(video[0, 0])
    start = world.frame
    first, second = world.step(1), world.step(2)
    assert torch.equal(world.undo(0), second)
    assert torch.equal(world.undo(np.int32(1)), first)
    for bad in (-1, 2, 1000, 0.5, None, "all", True):
        with pytest.raises(UserError, match=r"steps of undo must be an integer of 0 \.\. 1, .*1 actions were played"):
            world.undo(bad)
    assert torch.equal(world.frame, first)
    assert torch.equal(world.undo(1), start)


# Each message ends with an expression that converts `frames`; the user knows the value of `white`.
WRONG_FRAMES = {
    "float": lambda v: v.astype(np.float32),
    "big-endian float": lambda v: v.astype(">f8"),
    "int64": lambda v: v.astype(np.int64),
    "float tensor": lambda v: torch.from_numpy(v).float(),
    "one clip": lambda v: v[0],
    "one frame": lambda v: v[0, 0],
    "channels first": lambda v: np.moveaxis(v, -1, 2),
    "with alpha": lambda v: np.concatenate([v, v[..., :1]], axis=-1),
    "gray": lambda v: v[..., :1],
    "half as high": lambda v: np.ascontiguousarray(v[:, :, :8]),
    "tensor of another size": lambda v: torch.from_numpy(v).repeat(1, 1, 2, 1, 1),
}


@pytest.mark.parametrize("name", WRONG_FRAMES)
@pytest.mark.parametrize("method", ["infer_actions", "embed_actions", "tokenize", "generate"])
def test_the_remedy_for_frames_works(model, video, name, method):
    if name == "one frame" and method in ("infer_actions", "embed_actions"):
        pytest.skip("one frame has no action")
    frames = WRONG_FRAMES[name](video)
    call = {"generate": lambda f: model.generate(f, np.zeros((len(f), 1), int))}.get(method) or getattr(model, method)
    with pytest.raises(UserError, match=r"^frames must be \(B, T, 16, 16, 3\) uint8, got ") as caught:
        call(frames)
    remedy = re.search(r"; .*?((\(255|np\.|genie_datasets\.).*?)(, where|$)", str(caught.value))
    scope = {"np": np, "genie_datasets": genie_datasets, "frames": frames, "white": 255}
    call(eval(remedy[1], scope))


@pytest.mark.parametrize(
    ("shape", "remedy"),
    [((16, 16), "np.stack([frames] * 3, axis=-1)"), ((16, 16, 4), "np.asarray(frames)[..., :3]"),
     ((16, 16, 1), "np.repeat(np.asarray(frames), 3, axis=-1)"),
     ((3, 20, 30), "np.moveaxis(np.asarray(frames), -3, -1)"),
     ((5, 20, 30, 3), "genie_datasets.fit_frames(np.asarray(frames), (16, 16), 'crop')"),
     ((2, 5, 20, 30, 3), "genie_datasets.fit_frames(np.asarray(frames), (16, 16), 'crop')")],
)  # fmt: skip
def test_the_remedy_for_a_start_works(model, shape, remedy):
    frames = np.random.default_rng(2).integers(0, 256, shape, np.uint8)
    with pytest.raises(UserError, match=f"picture.*{re.escape(remedy)}"):
        model.start(frames)
    scope = {"np": np, "genie_datasets": genie_datasets, "frames": frames}
    assert model.start(eval(remedy, scope)).frame.shape[-3:] == (16, 16, 3)


@pytest.mark.parametrize("empty", [(0, 2, 16, 16, 3), (1, 0, 16, 16, 3), (1, 2, 0, 16, 3), (0,), (0, 16, 3)])
def test_empty_frames_are_refused(model, empty):
    for call in (model.infer_actions, model.tokenize, model.start):
        with pytest.raises(UserError, match="^frames must be"):
            call(np.zeros(empty, np.uint8))


@pytest.mark.parametrize(
    "bad", [None, "a", [[[1.0]]], np.zeros((1, 2, 3), int), np.zeros((1, 0, 16), int), [[16] * 16]]
)
def test_tokens_that_are_refused(model, bad):
    with pytest.raises(UserError, match="^tokens must be .*Genie.tokenize"):
        model.detokenize(bad)


@pytest.mark.parametrize("device", ["nonsense", "", None, 1.5, "meta", "cuda:99", "mps:7"])
def test_devices_that_are_refused(device):
    with pytest.raises(UserError, match="device .*expected cpu, or cuda where torch sees a GPU; pass device='cpu'"):
        Genie.from_pretrained("nano-tabletop", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_one_line():
    with pytest.raises(UserError, match="device cuda cannot be used here") as caught:
        Genie.from_pretrained("nano-tabletop", device="cuda")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("run", [None, 3, "no such run", "a\0b"])
def test_runs_that_are_refused(run):
    with pytest.raises(UserError, match="no run folder no such run|^run must be a path"):
        Genie.from_pretrained(run)


def test_saving_to_the_path_of_a_file(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file/config.json"):
        model.save_pretrained(tmp_path / "file")
    with pytest.raises(UserError, match="^run must be a path"):
        model.save_pretrained(None)
    with pytest.raises(UserError, match="unknown component 'decoder'; expected one of tokenizer"):
        model.reset_component("decoder")


def test_a_configuration_of_numpy_integers_is_stored(tmp_path, video):
    config = tiny_config()
    config.image_size, config.clip_length = (np.int64(16), np.int32(16)), np.int64(6)
    made = random_genie(config)
    made.save_pretrained(tmp_path)
    assert torch.equal(Genie.from_pretrained(tmp_path).infer_actions(video), made.infer_actions(video))

"""Latent action models over the scripted square, each with one planted property, for the checks on altered input."""

import numpy as np

from genie_eval.codes.transitions import Transitions
from genie_eval.collect import choose_trajectories, read_frames, true_motions

MOVES = np.array([(0, 0), (0, 2), (0, -2), (2, 0), (-2, 0)])  # those of the scripted world


def direction(first, second):
    """The move as a person sees it: from what grew dark to what grew bright, however light or coloured the square."""
    change = second.astype(int).mean(axis=-1) - first.astype(int).mean(axis=-1)
    brighter, darker = np.argwhere(change > 25), np.argwhere(change < -25)
    if len(brighter) < 3 or len(darker) < 3:
        return 0
    return 1 + int((MOVES[1:] @ (brighter.mean(axis=0) - darker.mean(axis=0))).argmax())


def reader(of_step):
    """infer_actions from a function of (clip, t), the step from frame t to t+1."""
    return lambda frames: np.array([[of_step(clip, t) for t in range(len(clip) - 1)] for clip in frames])


def scripted(make_genie, of_step, **more):
    genie = make_genie()
    genie.infer_actions = reader(of_step)
    for name, method in more.items():
        setattr(genie, name, method)
    return genie


def by_direction(clip, t):
    return direction(clip[t], clip[t + 1])


def by_brightness(clip, t):
    return int(clip[t + 1].mean()) % 5


def measured(genie, source, split="test"):
    """Inputs of the measurements on altered input: split, trajectories, table, codes."""
    split = source.split(split)
    trajectories, _ = choose_trajectories(split, None, None, 0)
    truths = [split.truth(t.episode) for t in trajectories]
    lengths = [len(t.ids) - 1 for t in trajectories]
    known = truths[0] is not None
    table = Transitions(
        trajectory=np.repeat(np.arange(len(lengths)), lengths),
        step=np.concatenate([np.arange(n) for n in lengths]),
        motions=true_motions(trajectories, truths),
        scene=np.repeat([truth.scene for truth in truths], lengths) if known else None,
    )
    codes = np.concatenate(
        [genie.infer_actions(read_frames(genie, split, t.episode, t.ids)[None])[0] for t in trajectories]
    )
    return split, trajectories, table, codes

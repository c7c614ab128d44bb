"""A scene in motion: actions in, pictures and truth out; any moment can be kept, restored and branched from."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from genie_datasets.base.errors import UserError
from genie_datasets.tabletop.control import STATE_SIZE, Controller, matrix_rotvec
from genie_datasets.tabletop.furniture import drawer_names
from genie_datasets.tabletop.mjcf import DISTRACTOR, HIDDEN, scene_xml
from genie_datasets.tabletop.placement import object_poses
from genie_datasets.tabletop.render import NoPainter, Painter, make_painter
from genie_datasets.tabletop.scene import MAX_OBJECTS, NUM_DRAWERS, SceneConfig

MAX_STEP = 0.05  # m of world_vector in one step
MAX_TURN = 0.28  # rad of rotation_delta in one step


@dataclass(frozen=True)
class Observation:
    """One moment: the picture, and the truth that goes with it. Lengths in metres in the base frame."""

    frame: UInt8[np.ndarray, "H W 3"]
    position: Float[np.ndarray, "3"]  # of the tool, measured
    rotation: Float[np.ndarray, "3"]  # of the tool, as a rotation vector
    image: Float[
        np.ndarray, "2"
    ]  # where the tool is in the picture (a square one where none is made): fractions of its sides
    gripper: float  # measured, 0 open .. 1 closed
    commanded: float  # the gripper command in force, 0 or 1
    objects: Float[np.ndarray, "6 7"]  # position and quaternion (w x y z); zeros where there is no object
    drawers: Float[np.ndarray, "3"]  # how far each is open, from the top; zeros where there is none


@dataclass(frozen=True)
class Futures:
    """What came of A sequences of n actions from one state. Frame t is seen after action t."""

    frames: UInt8[np.ndarray, "A n H W 3"]
    position: Float[np.ndarray, "A n 3"]
    rotation: Float[np.ndarray, "A n 3"]
    image: Float[np.ndarray, "A n 2"]
    gripper: Float[np.ndarray, "A n"]
    objects: Float[np.ndarray, "A n 6 7"]
    drawers: Float[np.ndarray, "A n 3"]
    states: Float[np.ndarray, "A n S"]  # each can be restored

    def __len__(self) -> int:
        return len(self.frames)


def physics_mark(scene: SceneConfig) -> float:
    """A number that scenes share only if their states can be exchanged: of what moves, not of its looks."""
    furniture, arm = scene.furniture, scene.arm
    parts = (furniture.layout, furniture.x, furniture.y, arm.shoulder, arm.slimness, arm.rest, scene.limits)
    kinds = [thing.kind for thing in scene.objects]
    return float(zlib.crc32(repr((parts, kinds)).encode()) + 1)  # + 1: never 0, which is what records are padded with


class Simulator:
    """One compiled scene and its renderer.

    Args:
        scene: what to simulate; `sample_scene(family, seed)` draws one.
        size: (height, width) of the pictures; None: none are made, frames are (0, 0, 3).
        recorded: (MJCF text, its textures) to compile instead of `scene`'s own: what a data set's record keeps.
        make_painter: from a model to a renderer, instead of OpenGL or the ray caster (see `render`).
    """

    def __init__(
        self,
        scene: SceneConfig,
        size: tuple[int, int] | None = (64, 64),
        recorded: tuple[str, dict[str, bytes]] | None = None,
        make_painter: Callable[[Any, tuple[int, int]], Painter] = make_painter,
    ):
        import mujoco

        self.size = size
        self.scene = scene if size is None else replace(scene, camera=scene.camera.for_size(size))
        self.mjcf, self.textures = recorded or scene_xml(self.scene)
        self.model = mujoco.MjModel.from_xml_string(self.mjcf, self.textures)
        self.data = mujoco.MjData(self.model)
        self.control = Controller(self.model, self.data, scene.arm.rest, scene.limits)
        self.painter = NoPainter() if size is None else make_painter(self.model, size)
        self._kind = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        self._physics_size = mujoco.mj_stateSize(self.model, self._kind)
        self._objects = [int(self.model.joint(f"object{i}").qposadr[0]) for i in range(len(scene.objects))]
        self._drawers = [int(self.model.joint(name).qposadr[0]) for name in drawer_names(scene.furniture)]
        self._mark = physics_mark(self.scene)
        self._mocap = int(self.model.body(DISTRACTOR).mocapid[0])
        self.reset()

    # ------------------------------------------------------------------------------------------------------- moving
    def reset(self, tool: np.ndarray | None = None, grip: float = 0.0) -> None:
        """Everything as in the scene's first moment, the tool at `tool` (3,) m: the middle of the work area if None.

        Objects stand on the table, where a scene's own draw puts them; `starts.begin` draws an episode's.
        """
        import mujoco

        mujoco.mj_resetData(self.model, self.data)
        self.place_objects(np.random.default_rng(zlib.crc32(repr(self.scene.objects).encode())))
        middle = (np.array(self.scene.work.low) + self.scene.work.high) / 2
        self.control.reset(middle if tool is None else tool, grip)
        self._pass_by(0.0)

    def place_objects(self, rng: np.random.Generator, lying: frozenset[int] = frozenset()) -> None:
        """Puts the objects where `placement.object_poses` draws them; those in `lying` lie."""
        opening = self.control.usual_rotation[:, 1]  # the line along which the fingers open
        heading = float(np.arctan2(opening[1], opening[0]))
        for index, pose in enumerate(object_poses(self.scene, heading, rng, lying)):
            self.place_object(index, pose.position, pose.quaternion)

    def settle(self, substeps: int) -> None:
        """Lets things come to rest, the arm holding still."""
        import mujoco

        mujoco.mj_step(self.model, self.data, substeps)

    def step(self, action: np.ndarray) -> None:
        """Carries out one action (7,) of a third of a second; see `Controller.step` for its meaning."""
        action = np.asarray(action, float)
        if action.shape != (7,) or not np.isfinite(action).all():
            raise UserError(f"an action is 7 finite numbers (x y z, rotation vector, gripper), not {action}")
        self._pass_by(self.data.time + self.control.config.substeps * self.model.opt.timestep)
        self.control.step(action)

    def _pass_by(self, time: float) -> None:
        """Puts whoever walks behind the table where they are at `time` s: a function of time, so nothing to restore."""
        who = self.scene.distractor
        at = HIDDEN if who is None else (who.x, who.reach * np.sin(2 * np.pi * time / who.period + who.phase), 0.0)
        self.data.mocap_pos[self._mocap] = at

    # ------------------------------------------------------------------------------------------------------- seeing
    def observe(self) -> Observation:
        """The picture and the truth of this moment. Changes nothing that later steps depend on."""
        import mujoco

        # mj_step leaves positions of bodies one substep behind the joints: the same moment must always look the same
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        position, rotation = self.control.tool()
        height, width = self.size or (1, 1)
        return Observation(
            frame=self.painter(self.data),
            position=position,
            rotation=matrix_rotvec(rotation),
            image=self.scene.camera.project(position, width / height),
            gripper=self.control.gripper(),
            commanded=self.control.grip,
            objects=self.object_poses(),
            drawers=self.drawer_openings(),
        )

    def object_poses(self) -> Float[np.ndarray, "6 7"]:
        """Position m and quaternion (w x y z) of every object; zeros where there is none."""
        poses = np.zeros((MAX_OBJECTS, 7))
        for i, at in enumerate(self._objects):
            poses[i] = self.data.qpos[at : at + 7]
        return poses

    def drawer_openings(self) -> Float[np.ndarray, "3"]:
        """How far each drawer is pulled out, m, from the top; zeros where there is none."""
        openings = np.zeros(NUM_DRAWERS)
        openings[: len(self._drawers)] = self.data.qpos[self._drawers]
        return openings

    def place_object(self, index: int, position: np.ndarray, quaternion: np.ndarray) -> None:
        """Puts an object at `position` (3,) m with orientation `quaternion` (4,) w x y z."""
        at = self._objects[index]
        self.data.qpos[at : at + 7] = [*position, *quaternion]

    def open_drawer(self, index: int, metres: float) -> None:
        """Pulls a drawer out by that much, at once. IndexError where the scene has no such drawer."""
        self.data.qpos[self._drawers[index]] = metres

    @property
    def num_drawers(self) -> int:
        return len(self._drawers)

    # ---------------------------------------------------------------------------------------------------- branching
    @property
    def state_size(self) -> int:
        """S, the length of a state."""
        return self._physics_size + STATE_SIZE + 1

    def snapshot(self) -> Float[np.ndarray, " S"]:
        """This moment, whole: MuJoCo's integration state, the controller's, and a mark of the scene's physics.

        The full physics state would not do: without the solver's warm start, what follows differs.
        """
        import mujoco

        physics = np.empty(self._physics_size)
        mujoco.mj_getState(self.model, self.data, physics, self._kind)
        return np.concatenate([physics, self.control.snapshot(), [self._mark]])

    def restore(self, state: Float[np.ndarray, " S"]) -> None:
        """Goes to a moment that `snapshot`, a `Futures` or a data set's record holds; what follows is the same to the
        bit, also on a recompiled model.

        Raises UserError where the state is not one of this scene (or of a `redraw` of it, but for its layout), is not
        float64, or is not finite. Records pad states with zeros at the end, which are cut.
        """
        import mujoco

        state, size = np.asarray(state), self.state_size
        if state.dtype != np.float64:
            raise UserError(f"a state is float64, not {state.dtype}: what follows would not be the same")
        if state.ndim != 1 or len(state) < size or np.any(state[size:]) or state[size - 1] != self._mark:
            raise UserError(
                f"this is no state of this scene ({size} numbers, here {state.shape}): "
                "restore them in the scene they were taken from"
            )
        if not np.isfinite(state).all():
            raise UserError("the state to restore holds numbers that are not finite")
        mujoco.mj_resetData(self.model, self.data)  # also what no state holds, such as contacts
        mujoco.mj_setState(self.model, self.data, state[: self._physics_size], self._kind)
        self.control.restore(state[self._physics_size : size - 1])

    def futures(self, state: Float[np.ndarray, " S"], actions: Float[np.ndarray, "A n 7"] | Sequence) -> Futures:
        """What would really have happened: each sequence of actions, carried out from the same state.

        The simulator is left as it was before the call. Raises UserError for actions of another shape.
        """
        actions = np.asarray(actions, float)
        if actions.ndim != 3 or actions.shape[2] != 7 or 0 in actions.shape:
            raise UserError(f"actions must be (A, n, 7): A sequences of n actions, not {actions.shape}")
        before = self.snapshot()
        rows = []
        for sequence in actions:
            self.restore(state)
            seen = []
            for action in sequence:
                self.step(action)
                seen.append((self.observe(), self.snapshot()))
            rows.append(seen)
        self.restore(before)

        def stack(get: Callable) -> np.ndarray:
            return np.array([[get(seen) for seen in row] for row in rows])

        names = ("position", "rotation", "image", "gripper", "objects", "drawers")
        return Futures(
            frames=stack(lambda seen: seen[0].frame),
            states=stack(lambda seen: seen[1]),
            **{name: stack(lambda seen, name=name: getattr(seen[0], name)) for name in names},
        )

    def close(self) -> None:
        """Frees the renderer."""
        self.painter.close()

"""The simulator: carries out actions, observes frames and truth, and restores or branches from any state."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Float, UInt8

from genie_datasets.base.errors import UserError
from genie_datasets.tabletop.control import STATE_SIZE, SUBSTEPS, Controller, matrix_to_rotvec
from genie_datasets.tabletop.furniture import drawer_names
from genie_datasets.tabletop.mjcf import DISTRACTOR, HIDDEN, scene_xml
from genie_datasets.tabletop.placement import object_poses
from genie_datasets.tabletop.raycast import NoRenderer, Renderer
from genie_datasets.tabletop.render import make_renderer
from genie_datasets.tabletop.scene import MAX_OBJECTS, NUM_DRAWERS, SceneConfig
from genie_datasets.tabletop.styles import apply_style

MAX_STEP = 0.05  # m that the skills translate along an axis in one step
MAX_TURN = 0.28  # rad that the skills turn in one step


@dataclass(frozen=True)
class Observation:
    """The frame and the truth at one moment. Lengths are in meters in the base frame."""

    frame: UInt8[np.ndarray, "H W 3"]
    position: Float[np.ndarray, "3"]  # of the tool, measured
    rotation: Float[np.ndarray, "3"]  # of the tool, a rotation vector
    image_position: Float[np.ndarray, "2"]  # of the tool, in fractions of width and height (of a square without a size)
    gripper: float  # measured closure, 0 (open) to 1 (closed)
    gripper_command: float  # in force: 0 (open) or 1 (closed)
    object_poses: Float[np.ndarray, "6 7"]  # position and quaternion (w x y z); zeros for missing objects
    drawer_openings: Float[np.ndarray, "3"]  # from the top; zeros for missing drawers


@dataclass(frozen=True)
class Futures:
    """Outcomes of A sequences of n actions from one state. Index t is the moment after action t."""

    frames: UInt8[np.ndarray, "A n H W 3"]
    position: Float[np.ndarray, "A n 3"]
    rotation: Float[np.ndarray, "A n 3"]
    image_position: Float[np.ndarray, "A n 2"]
    gripper: Float[np.ndarray, "A n"]
    object_poses: Float[np.ndarray, "A n 6 7"]
    drawer_openings: Float[np.ndarray, "A n 3"]
    states: Float[np.ndarray, "A n S"]  # `Simulator.restore` accepts each


def physics_checksum(scene: SceneConfig) -> float:
    """A number of all that decides the physics of a scene; scenes with the same number can exchange states."""
    furniture, arm = scene.furniture, scene.arm
    parts: tuple = (furniture.layout, furniture.x, furniture.y, arm.shoulder, arm.slimness, arm.rest, scene.limits)
    if (hand := (arm.finger_size, arm.hand_size)) != (1.0, 1.0):
        parts += hand
    kinds = [item.kind for item in scene.objects]
    return float(zlib.crc32(repr((parts, kinds)).encode()) + 1)  # + 1: never 0, the padding of recorded states


class Simulator:
    """One compiled scene and its renderer.

    Args:
        scene: the scene to simulate; `sample_scene(family, seed)` draws one.
        size: (height, width) of the frames; None renders nothing, and frames are (0, 0, 3).
        recorded: (MJCF text, its textures) of a recorded episode, to compile instead of the scene's own.
    """

    def __init__(
        self,
        scene: SceneConfig,
        size: tuple[int, int] | None = (64, 64),
        recorded: tuple[str, dict[str, bytes]] | None = None,
    ):
        import mujoco

        self.size = size
        self.scene = scene if size is None else replace(scene, camera=scene.camera.for_size(size))
        self.mjcf, self.textures = recorded or scene_xml(self.scene)
        self.model = mujoco.MjModel.from_xml_string(self.mjcf, self.textures)
        self.data = mujoco.MjData(self.model)
        self.control = Controller(self.model, self.data, scene.arm.rest, scene.limits, scene.arm.is_left)
        self.renderer: Renderer = NoRenderer() if size is None else make_renderer(self.model, size)
        self._state_kind = int(mujoco.mjtState.mjSTATE_INTEGRATION)
        self._physics_size = mujoco.mj_stateSize(self.model, self._state_kind)
        self._objects = [int(self.model.joint(f"object{i}").qposadr[0]) for i in range(len(scene.objects))]
        self._drawers = [int(self.model.joint(name).qposadr[0]) for name in drawer_names(scene.furniture)]
        self._checksum = physics_checksum(self.scene)
        self._mocap = int(self.model.body(DISTRACTOR).mocapid[0])
        self.reset()

    # ------------------------------------------------------------------------------------------------------- moving
    def reset(self, tool: np.ndarray | None = None, grip: float = 0.0) -> None:
        """Go to the initial state of the scene, with the tool at `tool` (3,) in m (default: center of the work area).

        Objects stand at positions that depend on the scene only; `starts.begin` draws those of an episode.
        """
        import mujoco

        mujoco.mj_resetData(self.model, self.data)
        seed = zlib.crc32(repr(self.scene.objects).replace("color", "colour").encode())  # as data sets spell it
        self.place_objects(np.random.default_rng(seed))
        center = (np.array(self.scene.work.low) + self.scene.work.high) / 2
        self.control.reset(center if tool is None else tool, grip)
        self.place_distractor(0.0)

    def place_objects(self, rng: np.random.Generator, lying: frozenset[int] = frozenset()) -> None:
        """Put the objects at poses that `placement.object_poses` draws; objects in `lying` lie on their side."""
        opening = self.control.default_rotation[:, 1]  # the line along which the fingers open
        heading = float(np.arctan2(opening[1], opening[0]))
        for index, pose in enumerate(object_poses(self.scene, heading, rng, lying)):
            at = self._objects[index]
            self.data.qpos[at : at + 7] = [*pose.position, *pose.quaternion]

    def step(self, action: np.ndarray) -> None:
        """Carry out one action (7,); `Controller.step` defines it. Raises UserError unless it is 7 finite numbers."""
        action = np.asarray(action, float)
        if action.shape != (7,) or not np.isfinite(action).all():
            raise UserError(
                f"action must be 7 finite numbers (translation in m, rotation vector in rad, gripper), got {action}"
            )
        self.place_distractor(self.data.time + SUBSTEPS * self.model.opt.timestep)
        self.control.step(action)

    def place_distractor(self, time: float) -> None:
        """Put the person behind the table at the position for `time` in s."""
        position = HIDDEN
        if walker := self.scene.distractor:
            y = walker.reach * np.sin(2 * np.pi * time / walker.period + walker.phase)
            position = (walker.x, y, 0.0)
        self.data.mocap_pos[self._mocap] = position

    # ---------------------------------------------------------------------------------------------------- observing
    def observe(self) -> Observation:
        """The frame and the truth at this moment. Later steps do not depend on whether it was called."""
        import mujoco

        # mj_step leaves the positions of bodies one substep behind the joints; this brings them up to date.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        position, rotation = self.control.tool_pose()
        height, width = self.size or (1, 1)
        number = round(self.data.time / self.model.opt.timestep)
        return Observation(
            frame=apply_style(self.scene.style, self.renderer(self.data), number),
            position=position,
            rotation=matrix_to_rotvec(rotation),
            image_position=self.scene.camera.project(position, width / height),
            gripper=self.control.gripper_closure(),
            gripper_command=self.control.grip,
            object_poses=self.object_poses(),
            drawer_openings=self.drawer_openings(),
        )

    def object_poses(self) -> Float[np.ndarray, "6 7"]:
        """Position in m and quaternion (w x y z) of every object; zeros for missing objects."""
        poses = np.zeros((MAX_OBJECTS, 7))
        for i, at in enumerate(self._objects):
            poses[i] = self.data.qpos[at : at + 7]
        return poses

    def drawer_openings(self) -> Float[np.ndarray, "3"]:
        """How far each drawer is open in m, from the top; zeros for missing drawers."""
        openings = np.zeros(NUM_DRAWERS)
        openings[: len(self._drawers)] = self.data.qpos[self._drawers]
        return openings

    def open_drawer(self, index: int, opening: float) -> None:
        """Set how far a drawer is open, in m. Raises IndexError if the scene has no such drawer."""
        self.data.qpos[self._drawers[index]] = opening

    @property
    def num_drawers(self) -> int:
        return len(self._drawers)

    # ---------------------------------------------------------------------------------------------------- branching
    @property
    def state_size(self) -> int:
        """S, the length of a state."""
        return self._physics_size + STATE_SIZE + 1

    def snapshot(self) -> Float[np.ndarray, " S"]:
        """The state of this moment: MuJoCo's integration state, the controller's state and `physics_checksum`.

        MuJoCo's full physics state would not be enough: it lacks the solver's warm start, on which later steps depend.
        """
        import mujoco

        physics = np.empty(self._physics_size)
        mujoco.mj_getState(self.model, self.data, physics, self._state_kind)
        return np.concatenate([physics, self.control.snapshot(), [self._checksum]])

    def restore(self, state: Float[np.ndarray, " S"]) -> None:
        """Go to a state of `snapshot`, of `futures` or of a data set, which may be padded with zeros at the end.

        Later steps are then bit-identical, also with a recompiled model. Raises UserError if the state belongs to
        another scene (a `redraw` of anything but the layout is the same scene), is not float64, or is not finite.
        """
        import mujoco

        state, size = np.asarray(state), self.state_size
        if state.dtype != np.float64:
            raise UserError(f"state must be float64, got {state.dtype}; keep the dtype that snapshot() returned")
        if state.ndim != 1 or len(state) < size or np.any(state[size:]) or state[size - 1] != self._checksum:
            raise UserError(
                f"this state of shape {state.shape} belongs to another scene; states of this scene have {size} numbers:"
                " restore it in the scene it was taken from"
            )
        if not np.isfinite(state).all():
            raise UserError("state must be finite, got nan or infinite numbers; pass a state that snapshot() returned")
        mujoco.mj_resetData(self.model, self.data)  # clears contacts and others that are not in a state
        mujoco.mj_setState(self.model, self.data, state[: self._physics_size], self._state_kind)
        self.control.restore(state[self._physics_size : size - 1])

    def futures(self, state: Float[np.ndarray, " S"], actions: Float[np.ndarray, "A n 7"] | Sequence) -> Futures:
        """Carry out A action sequences from one state; the simulator then returns to its own. Raises UserError."""
        actions = np.asarray(actions, float)
        if actions.ndim != 3 or actions.shape[2] != 7 or 0 in actions.shape:
            raise UserError(f"actions must be (A, n, 7), A sequences of n actions, got {actions.shape}")
        before = self.snapshot()
        rows = []
        for sequence in actions:
            self.restore(state)
            row = []
            for action in sequence:
                self.step(action)
                observation = self.observe()
                row.append({**vars(observation), "frames": observation.frame, "states": self.snapshot()})
            rows.append(row)
        self.restore(before)
        names = [field.name for field in fields(Futures)]
        return Futures(**{name: np.array([[moment[name] for moment in row] for row in rows]) for name in names})

    def close(self) -> None:
        """Free the renderer."""
        self.renderer.close()

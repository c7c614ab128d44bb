"""One episode: a scene, a skill, 40 frames, and the truth about them."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from genie_datasets.tabletop.control import Controller, matrix_rotvec
from genie_datasets.tabletop.mjcf import compile_scene
from genie_datasets.tabletop.objects import HALF_HEIGHT, LONG_KINDS
from genie_datasets.tabletop.render import Painter
from genie_datasets.tabletop.scene import MAX_OBJECTS, TABLE_TOP, SceneConfig
from genie_datasets.tabletop.skills import MAX_STEP, World, play, start_skill

NUM_FRAMES = 40
HZ = 3.0
SKILL_SHARES = {
    "easy": {"play": 0.76, "reach": 0.08, "push": 0.08, "pick": 0.08},
    "rt1": {"play": 0.25, "reach": 0.20, "push": 0.25, "pick": 0.30},
}
OBJECT_GAP, PLACING_TRIES = 0.13, 30  # m between objects, if that many tries find it
START_HEIGHT = 0.08  # m above the lowest point of the reach
SETTLING_SUBSTEPS = 40
COMMAND_NOISE = 0.004  # m; added to every executed translation, and recorded with it


@dataclass
class Episode:
    """Frames and truth of L steps. `action[t]` leads from frame t to frame t+1; the last one is zero."""

    frames: np.ndarray  # (L,H,W,3) uint8
    action: np.ndarray  # (L,7) float32
    position: np.ndarray  # (L,3) m, measured
    rotation: np.ndarray  # (L,3) rotation vector, measured
    image: np.ndarray  # (L,2) fractions of width and height
    gripper: np.ndarray  # (L,) 0 open .. 1 closed, measured
    objects: np.ndarray  # (L,6,3) m, zero where there is none
    commanded: np.ndarray  # (L,) gripper command in force, 0 or 1
    instruction: str
    skill: str
    success: bool  # of the skill's aim; False for play
    scene: int
    seed: int
    family: str
    renderer: str


def place_objects(model, data, scene: SceneConfig, control: Controller, rng: np.random.Generator) -> list[int]:
    """Sets the objects down apart from each other, mostly within reach; returns their addresses in qpos."""
    low = np.add(control.config.low[:2], (0.01, -0.05))
    high = np.add(control.config.high[:2], (0.06, 0.05))
    placed: list[np.ndarray] = []
    addresses = []
    for index, thing in enumerate(scene.objects):
        best, best_gap = low, -1.0
        for _ in range(PLACING_TRIES):
            at = rng.uniform(low, high)
            gap = min((float(np.linalg.norm(at - other)) for other in placed), default=np.inf)
            if gap > best_gap:
                best, best_gap = at, gap
            if gap > OBJECT_GAP:
                break
        placed.append(best)
        # In `easy` the hand never turns: long objects lie so that it can grasp them.
        spread = 0.4 if scene.family == "easy" and thing.kind in LONG_KINDS else np.pi / 2
        angle = rng.uniform(-spread, spread)
        address = int(model.joint(f"object{index}").qposadr[0])
        data.qpos[address : address + 3] = [*best.round(4), TABLE_TOP + HALF_HEIGHT[thing.kind] + 0.001]
        data.qpos[address + 3 : address + 7] = [np.cos(angle / 2), 0, 0, np.sin(angle / 2)]
        addresses.append(address)
    return addresses


def choose_skill(family: str, rng: np.random.Generator) -> str:
    """Draws the name of a skill by the family's shares."""
    shares = SKILL_SHARES[family]
    return str(rng.choice(list(shares), p=list(shares.values())))


class Simulator:
    """Rolls out episodes of one scene; made once per scene and worker, because compiling and GL contexts cost time."""

    def __init__(self, scene: SceneConfig, make_painter: Callable[[Any], Painter]):
        import mujoco

        self.scene = scene
        self.model = compile_scene(scene)
        self.data = mujoco.MjData(self.model)
        self.control = Controller(self.model, self.data, scene.arm.rest)
        self.painter = make_painter(self.model)

    def close(self) -> None:
        """Frees the renderer."""
        self.painter.close()

    def start(self, seed: int) -> World:
        """Puts arm and objects where episode `seed` begins, and lets the objects come to rest."""
        import mujoco

        rng = np.random.default_rng([seed, 1])
        mujoco.mj_resetData(self.model, self.data)
        addresses = place_objects(self.model, self.data, self.scene, self.control, rng)
        c = self.control.config
        tool = rng.uniform([*c.low[:2], c.low[2] + START_HEIGHT], c.high)
        self.control.reset(tool, grip=float(rng.random() < 0.3))
        mujoco.mj_step(self.model, self.data, SETTLING_SUBSTEPS)
        return World(self.scene, self.control, addresses, rng)

    def observe(self, world: World) -> dict[str, Any]:
        """What an Episode keeps of the present moment, but for the action."""
        position, rotation = self.control.tool()
        objects = np.zeros((MAX_OBJECTS, 3))
        for i in range(len(self.scene.objects)):
            objects[i] = world.object_position(i)
        return {
            "frames": self.painter(self.data),
            "position": position,
            "rotation": matrix_rotvec(rotation),
            "gripper": self.control.gripper(),
            "objects": objects,
            "commanded": self.control.grip,
        }

    def execute(self, command: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Carries out a command (7,) with noise, inside the reach; returns what was carried out, float32."""
        command = command.copy()
        if np.any(command[:3]):
            command[:3] += rng.normal(0, COMMAND_NOISE, 3)
        command[:3] = self.control.reachable(np.clip(command[:3], -MAX_STEP, MAX_STEP))
        done = command.astype(np.float32).round(5)
        self.control.step(done.astype(float))
        return done

    def rollout(self, seed: int) -> Episode:
        """Episode `seed` of this scene, a pure function of (scene, seed, renderer): a skill, then play to the end."""
        world = self.start(seed)
        skill = start_skill(choose_skill(self.scene.family, world.rng), world)
        commands = itertools.chain(skill.steps, play(world))
        success = False
        rows = []
        for t in range(NUM_FRAMES):
            row = self.observe(world)
            success = success or skill.achieved()
            last = t == NUM_FRAMES - 1
            row["action"] = np.zeros(7, np.float32) if last else self.execute(next(commands), world.rng)
            rows.append(row)
        columns = {key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0]}
        height, width = columns["frames"].shape[1:3]
        return Episode(
            **columns,
            image=self.scene.camera.project(columns["position"], width / height),
            instruction=skill.instruction,
            skill=skill.name,
            success=success,
            scene=self.scene.seed,
            seed=seed,
            family=self.scene.family,
            renderer=self.painter.name,
        )

"""One episode: a scene, a skill, 40 frames, and the truth about them."""

from dataclasses import dataclass

import numpy as np

from genie_datasets.tabletop.control import Controller, matrix_rotvec
from genie_datasets.tabletop.mjcf import compile_scene
from genie_datasets.tabletop.objects import HALF_HEIGHT, LONG_KINDS
from genie_datasets.tabletop.render import Painter
from genie_datasets.tabletop.scene import MAX_OBJECTS, TABLE_TOP, SceneConfig, sample_scene
from genie_datasets.tabletop.skills import MAX_STEP, Steps, World, play, start_skill

NUM_FRAMES = 40
HZ = 3.0
SKILL_SHARES = {
    "easy": {"play": 0.76, "reach": 0.08, "push": 0.08, "pick": 0.08},
    "rt1": {"play": 0.25, "reach": 0.20, "push": 0.25, "pick": 0.30},
}
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
    c = control.config
    placed: list[np.ndarray] = []
    addresses = []
    for index, thing in enumerate(scene.objects):
        best, best_gap = np.zeros(2), -1.0
        for _ in range(30):
            at = np.array(
                [rng.uniform(c.low[0] + 0.01, c.high[0] + 0.06), rng.uniform(c.low[1] - 0.05, c.high[1] + 0.05)]
            )
            gap = min((float(np.linalg.norm(at - other)) for other in placed), default=1.0)
            if gap > best_gap:
                best, best_gap = at, gap
            if gap > 0.13:
                break
        placed.append(best)
        address = int(model.joint(f"object{index}").qposadr[0])
        spread = 0.4 if scene.family == "easy" and thing.kind in LONG_KINDS else np.pi / 2
        angle = rng.uniform(-spread, spread)
        data.qpos[address : address + 3] = [*best.round(4), TABLE_TOP + HALF_HEIGHT[thing.kind] + 0.001]
        data.qpos[address + 3 : address + 7] = [np.cos(angle / 2), 0, 0, np.sin(angle / 2)]
        addresses.append(address)
    return addresses


def choose_skill(family: str, rng: np.random.Generator) -> str:
    shares = SKILL_SHARES[family]
    return str(rng.choice(list(shares), p=list(shares.values())))


class Simulator:
    """Rolls out episodes of one scene; made once per scene and worker, because compiling and GL contexts cost time."""

    def __init__(self, scene: SceneConfig, make_painter):
        import mujoco

        self.scene = scene
        self.model = compile_scene(scene)
        self.data = mujoco.MjData(self.model)
        self.control = Controller(self.model, self.data, scene.arm.rest)
        self.painter: Painter = make_painter(self.model)

    def close(self) -> None:
        self.painter.close()

    def rollout(self, seed: int, size: tuple[int, int]) -> Episode:
        """Episode number `seed` of this scene: a pure function of (scene, seed, renderer)."""
        import mujoco

        model, data, control = self.model, self.data, self.control
        rng = np.random.default_rng([seed, 1])
        mujoco.mj_resetData(model, data)
        addresses = place_objects(model, data, self.scene, control, rng)
        c = control.config
        start = rng.uniform(c.low, c.high)
        start[2] = rng.uniform(c.low[2] + 0.08, c.high[2])
        control.reset(start, grip=float(rng.random() < 0.3))
        mujoco.mj_step(model, data, 40)  # objects come to rest
        world = World(self.scene, control, addresses, rng)
        skill = start_skill(choose_skill(self.scene.family, rng), world)
        then = play(world)
        success = False
        rows: list[tuple] = []
        frames = np.empty((NUM_FRAMES, *size, 3), np.uint8)
        for t in range(NUM_FRAMES):
            frames[t] = self.painter(data)
            success = success or skill.achieved()
            things = np.zeros((MAX_OBJECTS, 3))
            for i in range(len(addresses)):
                things[i] = world.object_position(i)
            position, rotation = control.tool()
            row = (position, matrix_rotvec(rotation), control.gripper(), things, control.grip)
            command = np.zeros(7, np.float32)
            if t < NUM_FRAMES - 1:
                command = self._execute(next(skill.steps, None), then, rng)
            rows.append((*row, command))
        position, rotvec, gripper, things, commanded, actions = (np.array(column) for column in zip(*rows, strict=True))
        return Episode(
            frames=frames,
            action=actions,
            position=position,
            rotation=rotvec,
            image=self.scene.camera.project(position, size[1] / size[0]),
            gripper=gripper,
            objects=things,
            commanded=commanded,
            instruction=skill.instruction,
            skill=skill.name,
            success=success,
            scene=self.scene.seed,
            seed=seed,
            family=self.scene.family,
            renderer=self.painter.name,
        )

    def _execute(self, command: np.ndarray | None, then: Steps, rng: np.random.Generator) -> np.ndarray:
        """Carries out a command (7,), or the next of `then`, with noise; returns what was carried out (7,) float32."""
        command = next(then) if command is None else command
        if np.any(command[:3]):
            command[:3] += rng.normal(0, COMMAND_NOISE, 3)
        command[:3] = self.control.reachable(np.clip(command[:3], -MAX_STEP, MAX_STEP))
        done = command.astype(np.float32).round(5)
        self.control.step(done.astype(float))
        return done


def make_simulator(family: str, scene: int, make_painter) -> Simulator:
    return Simulator(sample_scene(family, scene), make_painter)

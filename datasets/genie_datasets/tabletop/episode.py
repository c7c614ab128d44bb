"""One episode: a scene, a skill or play, 40 frames, and the truth about them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genie_datasets.tabletop.factors import FAMILY_FACTORS, Behaviour
from genie_datasets.tabletop.simulator import MAX_STEP, Simulator
from genie_datasets.tabletop.skills import SKILLS, Skill, World, play
from genie_datasets.tabletop.starts import begin

NUM_FRAMES = 40
HZ = 3.0
SKILL_SHARES = {
    "easy": {"play": 0.76, "reach": 0.08, "push": 0.08, "pick": 0.08},
    "rt1": {
        "play": 0.20,
        "reach": 0.06,
        "pick": 0.16,
        "place": 0.10,
        "push": 0.12,
        "move near": 0.10,
        "open drawer": 0.08,
        "close drawer": 0.07,
        "place upright": 0.05,
        "knock over": 0.06,
    },
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
    objects: np.ndarray  # (L,6,7) m and quaternion w x y z, zero where there is none
    drawers: np.ndarray  # (L,3) m pulled out, zero where there is none
    commanded: np.ndarray  # (L,) gripper command in force, 0 or 1
    state: np.ndarray  # (L,S) float64; `Simulator.restore` goes there
    instructions: list[str]  # (L,) what the robot was doing at each step
    skill: str  # the first one
    success: bool  # of the first skill's aim; False for play
    seed: int
    renderer: str


def choose_skill(family: str, behaviour: Behaviour, drawers: bool, rng: np.random.Generator) -> str:
    """Draws the name of a skill by the family's shares; "expert" never plays, "play" does nothing else."""
    if behaviour == "play":
        return "play"
    shares = dict(SKILL_SHARES[family])
    if behaviour == "expert":
        shares.pop("play")
    if not drawers:
        shares = {name: share for name, share in shares.items() if "drawer" not in name}
    total = sum(shares.values())
    return str(rng.choice(list(shares), p=[share / total for share in shares.values()]))


@dataclass
class Script:
    """The robot's behaviour over an episode: a first skill, then more skills ("expert") or play."""

    world: World
    behaviour: Behaviour
    first: Skill
    now: Skill

    @classmethod
    def start(cls, world: World, behaviour: Behaviour, name: str) -> "Script":
        """Begins with skill `name`: play where nothing on the table suits it."""
        first = SKILLS[name](world) or play(world)
        return cls(world, behaviour, first, first)

    def commands(self) -> Iterator[np.ndarray]:
        """Actions (7,) without end."""
        while True:
            yield from self.now.steps
            self.now = self._next()

    def _next(self) -> Skill:
        world, drawers = self.world, self.world.sim.num_drawers > 0
        if self.behaviour == "expert":
            for _ in range(10):
                name = choose_skill(world.scene.family, self.behaviour, drawers, world.rng)
                if skill := SKILLS[name](world):
                    return skill
        return play(world)


def execute(world: World, command: np.ndarray) -> np.ndarray:
    """Carries out a command (7,) with noise, inside the reach; returns what was carried out, float32."""
    command = command.copy()
    if np.any(command[:3]):
        command[:3] += world.rng.normal(0, COMMAND_NOISE, 3)
    command[:3] = world.sim.control.reachable(np.clip(command[:3], -MAX_STEP, MAX_STEP))
    done = command.astype(np.float32).round(5)
    world.sim.step(done.astype(float))
    return done


def rollout(
    sim: Simulator, seed: int, behaviour: Behaviour | None = None, skill: str | None = None, frames: int = NUM_FRAMES
) -> Episode:
    """Episode `seed` of a scene, a pure function of (scene, seed, behaviour, renderer).

    behaviour: the family's own unless given. skill: which one to begin with, drawn unless given.
    """
    rng = np.random.default_rng([seed, 1])
    world = World(sim, rng)
    behaviour = behaviour or FAMILY_FACTORS[sim.scene.family].behaviour
    drawn = choose_skill(sim.scene.family, behaviour, sim.num_drawers > 0, rng)
    name = skill or drawn
    begin(sim, rng, name)
    script = Script.start(world, behaviour, name)
    commands = script.commands()
    success = False
    columns: dict[str, list] = {}
    for t in range(frames):
        seen = sim.observe()
        row = {**vars(seen), "state": sim.snapshot()}
        success = success or script.first.achieved()
        row["action"] = np.zeros(7, np.float32) if t == frames - 1 else execute(world, next(commands))
        row["instructions"] = script.now.instruction
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    instructions = columns.pop("instructions")
    columns["frames"] = columns.pop("frame")
    return Episode(
        **{key: np.stack([np.asarray(value) for value in values]) for key, values in columns.items()},
        instructions=instructions,
        skill=script.first.name,
        success=success,
        seed=seed,
        renderer=sim.painter.name,
    )

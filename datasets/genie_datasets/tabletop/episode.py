"""Roll out one episode: a skill or play in a scene, with the frames and the truth of every step."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from genie_datasets.tabletop.factors import FAMILY_FACTORS, Behavior
from genie_datasets.tabletop.simulator import MAX_STEP, Simulator
from genie_datasets.tabletop.skills import SKILLS, Skill, Workspace, play
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
    "wild": {"play": 0.80, "reach": 0.06, "push": 0.08, "pick": 0.06},
}
COMMAND_NOISE = 0.004  # m; added to every translation that is not zero; recorded actions include it


@dataclass
class Episode:
    """Frames and truth of L steps. `actions[t]` leads from frame t to frame t+1; the last one is zero."""

    frames: np.ndarray  # (L,H,W,3) uint8
    actions: np.ndarray  # (L,7) float32
    position: np.ndarray  # (L,3) m; of the tool, measured
    rotation: np.ndarray  # (L,3) rotation vector of the tool, measured
    image_position: np.ndarray  # (L,2) of the tool, in fractions of width and height
    gripper: np.ndarray  # (L,) measured closure, 0 (open) to 1 (closed)
    gripper_command: np.ndarray  # (L,) in force: 0 (open) or 1 (closed)
    object_poses: np.ndarray  # (L,6,7) position in m and quaternion (w x y z); zeros for missing objects
    drawer_openings: np.ndarray  # (L,3) m; zeros for missing drawers
    states: np.ndarray  # (L,S) float64, for `Simulator.restore`
    instructions: list[str]  # (L,) of the skill at each step
    skill: str  # name of the first skill
    success: bool  # whether the first skill achieved its goal; False for play
    seed: int
    renderer: str


def choose_skill(family: str, behavior: Behavior, has_drawers: bool, rng: np.random.Generator) -> str:
    """Draw the name of a skill by the family's shares. "expert" never plays, "play" only plays."""
    if behavior == "play":
        return "play"
    shares = dict(SKILL_SHARES[family])
    if behavior == "expert":
        shares.pop("play")
    if not has_drawers:
        shares = {name: share for name, share in shares.items() if "drawer" not in name}
    total = sum(shares.values())
    return str(rng.choice(list(shares), p=[share / total for share in shares.values()]))


def commands(workspace: Workspace, behavior: Behavior, first: Skill) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (instruction, action (7,)) without end: of the first skill, then of more skills ("expert") or play."""
    skill = first
    while True:
        for command in skill.steps:
            yield skill.instruction, command
        tries = 10 if behavior == "expert" else 0  # the scene may not allow a drawn skill
        has_drawers = workspace.sim.num_drawers > 0
        names = (choose_skill(workspace.scene.family, behavior, has_drawers, workspace.rng) for _ in range(tries))
        skill = next(filter(None, (SKILLS[name](workspace) for name in names)), None) or play(workspace)


def execute(workspace: Workspace, command: np.ndarray) -> np.ndarray:
    """Carry out a command (7,) with noise and inside the limits. Returns the executed action (7,) float32."""
    command = command.copy()
    if np.any(command[:3]):
        command[:3] += workspace.rng.normal(0, COMMAND_NOISE, 3)
    command[:3] = workspace.sim.control.reachable(np.clip(command[:3], -MAX_STEP, MAX_STEP))
    executed = command.astype(np.float32).round(5)
    workspace.sim.step(executed.astype(float))
    return executed


def rollout(
    sim: Simulator, seed: int, behavior: Behavior | None = None, skill: str | None = None, frames: int = NUM_FRAMES
) -> Episode:
    """Simulate episode `seed` of a scene: a pure function of the arguments and the renderer.

    Args:
        behavior: the default is the family's.
        skill: name of the first skill; drawn if not given.
    """
    rng = np.random.default_rng([seed, 1])
    workspace = Workspace(sim, rng)
    behavior = behavior or FAMILY_FACTORS[sim.scene.family].behaviour
    drawn = choose_skill(sim.scene.family, behavior, sim.num_drawers > 0, rng)
    name = skill or drawn
    begin(sim, rng, name)
    first = SKILLS[name](workspace) or play(workspace)  # play if the scene does not allow the skill
    script = commands(workspace, behavior, first)
    instruction, success = first.instruction, False
    rows: list[dict] = []
    instructions: list[str] = []
    for t in range(frames):
        row = {**vars(sim.observe()), "states": sim.snapshot(), "actions": np.zeros(7, np.float32)}
        row["frames"] = row.pop("frame")
        success = success or first.achieved()
        if t < frames - 1:
            instruction, command = next(script)
            row["actions"] = execute(workspace, command)
        rows.append(row)
        instructions.append(instruction)
    return Episode(
        **{key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0]},
        instructions=instructions,
        skill=first.name,
        success=success,
        seed=seed,
        renderer=sim.renderer.name,
    )

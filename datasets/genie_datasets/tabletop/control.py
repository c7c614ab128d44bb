"""End-effector control: 7-D actions at 3 Hz in, joint targets by damped least squares out."""

from dataclasses import dataclass

import numpy as np

from genie_datasets.tabletop.arm import FINGER_TRAVEL, FINGERS, JOINTS, TOOL_SITE, tool_rotation
from genie_datasets.tabletop.scene import Box


@dataclass(frozen=True)
class ControlConfig:
    """Control rate and inverse kinematics. Metres and radians."""

    substeps: int = 67  # x 5 ms = one step at 3 Hz
    ramp: int = 40  # substeps over which the joint targets move; the rest lets the arm settle
    chunk: int = 4  # substeps per call of mj_step while the targets move
    approach: tuple[float, float, float] = (0.22, 0.30, -0.93)
    opening: tuple[float, float, float] = (0.25, 1.0, 0.0)
    damping: float = 0.02
    iterations: int = 30
    tolerance: float = 1e-4
    rest_gain: float = 0.15
    decimals: int = 5  # BLAS kernels differ in the last bits; rounding makes the joint targets the same on all


def rotvec_matrix(rotvec: np.ndarray) -> np.ndarray:
    """Rotation vector (3,) -> matrix (3,3)."""
    angle = float(np.linalg.norm(rotvec))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = np.asarray(rotvec) / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def matrix_rotvec(matrix: np.ndarray) -> np.ndarray:
    """Matrix (3,3) -> rotation vector (3,), also near half a turn."""
    import mujoco

    quat, out = np.empty(4), np.empty(3)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(matrix, float).reshape(9))
    mujoco.mju_quat2Vel(out, quat, 1.0)
    return out


STATE_SIZE = 3 + 9 + len(JOINTS) + 1


class Controller:
    """Moves one arm. The target pose integrates the actions; what the arm really did is read from the simulation.

    limits: the box that the tool's target is kept in.
    """

    def __init__(self, model, data, rest: tuple[float, ...], limits: Box, config: ControlConfig | None = None):
        import mujoco

        self.config = config or ControlConfig()
        self.limits = limits
        self.model, self.data = model, data
        self._scratch = mujoco.MjData(model)
        self._site = mujoco.mj_name2id(model, int(mujoco.mjtObj.mjOBJ_SITE), TOOL_SITE)
        joints = [model.joint(name) for name in JOINTS]
        self._qpos = np.array([j.qposadr[0] for j in joints])
        self._dof = np.array([j.dofadr[0] for j in joints])
        self._fingers = np.array([model.joint(name).qposadr[0] for name in FINGERS])
        self._arm_ctrl = np.array([model.actuator(name).id for name in JOINTS])
        self._finger_ctrl = np.array([model.actuator(name).id for name in FINGERS])
        self._rest = np.array(rest)
        self.position = np.zeros(3)
        self.usual_rotation = tool_rotation(np.array(self.config.approach), np.array(self.config.opening))
        self.rotation = self.usual_rotation.copy()
        self.joints = self._rest.copy()
        self.grip = 0.0

    def reset(self, position: np.ndarray, grip: float = 0.0) -> None:
        """Puts the arm at `position` (3,) in the usual orientation, at rest. Call after mj_resetData."""
        import mujoco

        self.position = self._clip(position)
        self.rotation = self.usual_rotation.copy()
        self.grip = float(grip)
        self.joints = self._rest.copy()
        for _ in range(6):
            self.joints = self.solve(self.position, self.rotation, self.joints)
        self.data.qpos[self._qpos] = self.joints
        self.data.qpos[self._fingers] = FINGER_TRAVEL * (1 - self.grip)
        self.data.ctrl[self._arm_ctrl] = self.joints
        self.data.ctrl[self._finger_ctrl] = FINGER_TRAVEL * (1 - self.grip)
        mujoco.mj_forward(self.model, self.data)

    def snapshot(self) -> np.ndarray:
        """All that a controller carries from step to step, (STATE_SIZE,) float64."""
        return np.concatenate([self.position, self.rotation.reshape(9), self.joints, [self.grip]])

    def restore(self, state: np.ndarray) -> None:
        """Continues from what `snapshot` returned."""
        self.position, self.rotation = state[:3].copy(), state[3:12].reshape(3, 3).copy()
        self.joints, self.grip = state[12:19].copy(), float(state[19])

    def reachable(self, move: np.ndarray) -> np.ndarray:
        """The part of a translation (3,) that stays inside the box."""
        return self._clip(self.position + move) - self.position

    def _clip(self, position: np.ndarray) -> np.ndarray:
        return np.clip(position, self.limits.low, self.limits.high)

    def solve(self, position: np.ndarray, rotation: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Joint angles (7,) that bring the tool to (position, rotation), searched from `start`, elbow towards rest."""
        import mujoco

        c, scratch = self.config, self._scratch
        q = start.copy()
        jacobian = np.empty((6, self.model.nv))
        error, turn = np.empty(6), np.empty(3)
        for _ in range(c.iterations):
            scratch.qpos[self._qpos] = q
            mujoco.mj_kinematics(self.model, scratch)
            mujoco.mj_comPos(self.model, scratch)
            mujoco.mj_jacSite(self.model, scratch, jacobian[:3], jacobian[3:], self._site)
            here = scratch.site_xmat[self._site].reshape(3, 3)
            error[:3] = position - scratch.site_xpos[self._site]
            turn = matrix_rotvec(rotation @ here.T)
            error[3:] = turn
            if np.abs(error).max() < c.tolerance:
                break
            jac = jacobian[:, self._dof]
            inverse = jac.T @ np.linalg.inv(jac @ jac.T + c.damping**2 * np.eye(6))
            drift = c.rest_gain * (self._rest - q)
            q = q + np.clip(inverse @ error + drift - inverse @ (jac @ drift), -0.3, 0.3)
        return q.round(c.decimals)

    def step(self, action: np.ndarray) -> None:
        """One control step of a third of a second.

        action (7,): world_vector (3) m, rotation_delta (3) rotation vector in the base frame, gripper (1):
        +1 closes, -1 opens, 0 keeps.
        """
        import mujoco

        c = self.config
        self.position = self._clip(self.position + action[:3])
        self.rotation = rotvec_matrix(action[3:6]) @ self.rotation
        before, before_grip = self.joints, self.grip
        self.joints = self.solve(self.position, self.rotation, before)
        if action[6]:
            self.grip = 1.0 if action[6] > 0 else 0.0
        done = 0
        while done < c.ramp:
            part = min(1.0, (done + c.chunk) / c.ramp)
            self.data.ctrl[self._arm_ctrl] = before + part * (self.joints - before)
            grip = before_grip + part * (self.grip - before_grip)
            self.data.ctrl[self._finger_ctrl] = FINGER_TRAVEL * (1 - grip)
            mujoco.mj_step(self.model, self.data, c.chunk)
            done += c.chunk
        mujoco.mj_step(self.model, self.data, c.substeps - done)

    def tool(self) -> tuple[np.ndarray, np.ndarray]:
        """Measured pose of the tool: position (3,) and rotation matrix (3,3)."""
        return self.data.site_xpos[self._site].copy(), self.data.site_xmat[self._site].reshape(3, 3).copy()

    def gripper(self) -> float:
        """Measured closure of the gripper, 0 open to 1 closed."""
        return float(np.clip(1 - self.data.qpos[self._fingers].mean() / FINGER_TRAVEL, 0, 1))

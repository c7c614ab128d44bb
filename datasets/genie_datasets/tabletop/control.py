"""End-effector control: turns 7-D actions at 3 Hz into joint targets by damped least squares."""

import numpy as np

from genie_datasets.tabletop.arm import FINGER_TRAVEL, FINGERS, JOINTS, TOOL_SITE, tool_rotation
from genie_datasets.tabletop.scene import Box

SUBSTEPS = 67  # of 5 ms: one step at 3 Hz
RAMP_SUBSTEPS = 40  # while the joint targets move; in the rest of a step the arm settles
SUBSTEPS_PER_CALL = 4  # of mj_step while the targets move
APPROACH = (0.22, 0.30, -0.93)  # default direction of the tool
OPENING = (0.25, 1.0, 0.0)  # default direction in which the fingers open
STATE_SIZE = 3 + 9 + len(JOINTS) + 1  # position, rotation, joints, gripper

# Inverse kinematics
DAMPING = 0.02
ITERATIONS = 30
TOLERANCE = 1e-4  # m and rad
NULLSPACE_GAIN = 0.15
DECIMALS = 5  # of joint targets: rounding removes the differences between BLAS kernels


def rotvec_to_matrix(rotvec: np.ndarray) -> np.ndarray:
    """Convert a rotation vector (3,) to a matrix (3,3)."""
    angle = float(np.linalg.norm(rotvec))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = np.asarray(rotvec) / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * (k @ k)


def matrix_to_rotvec(matrix: np.ndarray) -> np.ndarray:
    """Convert a rotation matrix (3,3) to a rotation vector (3,), also close to half a turn."""
    import mujoco

    quat, out = np.empty(4), np.empty(3)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(matrix, float).reshape(9))
    mujoco.mju_quat2Vel(out, quat, 1.0)
    return out


class Controller:
    """Moves one arm. The target pose integrates the actions; measured poses are read from the simulation.

    Args:
        rest: joint angles (7,) in rad that the inverse kinematics prefers.
        limits: the box in which the tool's target stays.
        mirrored: whether the default orientation is that of an arm to the left of the table.
    """

    def __init__(self, model, data, rest: tuple[float, ...], limits: Box, mirrored: bool = False):
        import mujoco

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
        self.default_rotation = tool_rotation(np.array(APPROACH), np.array(OPENING))
        if mirrored:
            mirror = np.array([1.0, -1.0, 1.0])
            self.default_rotation = tool_rotation(np.array(APPROACH) * mirror, -np.array(OPENING) * mirror)
        self.rotation = self.default_rotation.copy()
        self.joints = self._rest.copy()
        self.grip = 0.0

    def reset(self, position: np.ndarray, grip: float = 0.0) -> None:
        """Put the arm at `position` (3,) in m with the default orientation, at rest. Call after mj_resetData."""
        import mujoco

        self.position = self._clip(position)
        self.rotation = self.default_rotation.copy()
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
        """The state of the controller, (STATE_SIZE,) float64."""
        return np.concatenate([self.position, self.rotation.reshape(9), self.joints, [self.grip]])

    def restore(self, state: np.ndarray) -> None:
        """Continue from a state that `snapshot` returned."""
        self.position, self.rotation = state[:3].copy(), state[3:12].reshape(3, 3).copy()
        self.joints, self.grip = state[12:19].copy(), float(state[19])

    def reachable(self, move: np.ndarray) -> np.ndarray:
        """The part of a translation (3,) that stays inside the limits."""
        return self._clip(self.position + move) - self.position

    def _clip(self, position: np.ndarray) -> np.ndarray:
        return np.clip(position, self.limits.low, self.limits.high)

    def solve(self, position: np.ndarray, rotation: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Joint angles (7,) that bring the tool to (position, rotation), by iteration from `start` (7,).

        The arm has one joint more than the pose needs: it keeps the joints close to the rest pose.
        """
        import mujoco

        scratch = self._scratch
        q = start.copy()
        jacobian = np.empty((6, self.model.nv))
        error = np.empty(6)
        for _ in range(ITERATIONS):
            scratch.qpos[self._qpos] = q
            mujoco.mj_kinematics(self.model, scratch)
            mujoco.mj_comPos(self.model, scratch)
            mujoco.mj_jacSite(self.model, scratch, jacobian[:3], jacobian[3:], self._site)
            current = scratch.site_xmat[self._site].reshape(3, 3)
            error[:3] = position - scratch.site_xpos[self._site]
            error[3:] = matrix_to_rotvec(rotation @ current.T)
            if np.abs(error).max() < TOLERANCE:
                break
            jac = jacobian[:, self._dof]
            inverse = jac.T @ np.linalg.inv(jac @ jac.T + DAMPING**2 * np.eye(6))
            to_rest = NULLSPACE_GAIN * (self._rest - q)
            q = q + np.clip(inverse @ error + to_rest - inverse @ (jac @ to_rest), -0.3, 0.3)
        return q.round(DECIMALS)

    def step(self, action: np.ndarray) -> None:
        """Carry out one action (7,), in a third of a second.

        action: translation (3) in m and rotation vector (3) in rad, both in the base frame, and gripper (1): +1 closes,
            -1 opens, 0 keeps.
        """
        import mujoco

        self.position = self._clip(self.position + action[:3])
        self.rotation = rotvec_to_matrix(action[3:6]) @ self.rotation
        before, before_grip = self.joints, self.grip
        self.joints = self.solve(self.position, self.rotation, before)
        if action[6]:
            self.grip = 1.0 if action[6] > 0 else 0.0
        done = 0
        while done < RAMP_SUBSTEPS:
            done += SUBSTEPS_PER_CALL
            progress = min(1.0, done / RAMP_SUBSTEPS)
            self.data.ctrl[self._arm_ctrl] = before + progress * (self.joints - before)
            grip = before_grip + progress * (self.grip - before_grip)
            self.data.ctrl[self._finger_ctrl] = FINGER_TRAVEL * (1 - grip)
            mujoco.mj_step(self.model, self.data, SUBSTEPS_PER_CALL)
        mujoco.mj_step(self.model, self.data, SUBSTEPS - done)

    def tool_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Measured pose of the tool: position (3,) in m and rotation matrix (3,3)."""
        return self.data.site_xpos[self._site].copy(), self.data.site_xmat[self._site].reshape(3, 3).copy()

    def gripper_closure(self) -> float:
        """Measured closure of the gripper, from 0 (open) to 1 (closed)."""
        return float(np.clip(1 - self.data.qpos[self._fingers].mean() / FINGER_TRAVEL, 0, 1))

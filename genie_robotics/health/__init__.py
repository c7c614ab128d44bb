"""What goes wrong in a run, named while it happens (training.sentinel) and afterwards (`doctor`).

measures.py measures, rules.py says from which value on a measurement is a finding and what helps, doctor.py does both
for a run folder.
"""

from genie_robotics.health.findings import Finding

__all__ = ["Finding"]

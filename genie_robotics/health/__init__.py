"""Health of a run: measurements (measures.py, history.py), the table of limits and remedies (rules.py), and `doctor`.

The same measurements and rules serve training (training/health_checks.py) and `doctor`.
"""

"""Imports between the modules of the three packages, read from their source: also those inside functions and those for
type checking alone."""

import ast
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("datasets/genie_datasets", "genie_robotics", "eval/genie_eval")
Graph = Mapping[str, set[str]]


def modules() -> dict[str, Path]:
    """Path of every module, by its dotted name."""
    found = {}
    for package in PACKAGES:
        folder = ROOT / package
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph() -> Graph:
    """Modules that each module imports."""
    paths = modules()
    graph: dict[str, set[str]] = {}
    for name, path in paths.items():
        graph[name] = imported = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                named = [f"{node.module}.{alias.name}" for alias in node.names]
                imported |= {full if full in paths else node.module for full in named}
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
        imported &= paths.keys() - {name}
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others (strongly connected components)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(name: str) -> None:
        number[name] = lowest[name] = len(number)
        stack.append(name)
        for other in graph[name]:
            if other not in number:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], number[other])
        if lowest[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in number:
            visit(name)
    return found

"""What the figures of the report add to the one look for all (genie_robotics.figures)."""

from genie_robotics.figures import GREY, INK, PALETTE, RULE, code_colour, figure

GOOD, BAD, MODEL = "#2f855a", "#c05621", "#2b6cb0"

__all__ = ["BAD", "GOOD", "GREY", "INK", "MODEL", "PALETTE", "RULE", "code_colour", "figure"]

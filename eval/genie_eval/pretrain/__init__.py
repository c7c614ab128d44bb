"""How a world that comes with the package is made: recipe, training, judge, report, model card."""

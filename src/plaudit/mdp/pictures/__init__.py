"""Pictures of finite worlds, one function each; every one returns a matplotlib Figure.

value_on_grid(mdp, solve(mdp).value).savefig("value.png")
"""

from plaudit.mdp.pictures.backup import backup_diagram, q_backup_diagram
from plaudit.mdp.pictures.curves import Curves, convergence, learning_curves, lines, study_curves
from plaudit.mdp.pictures.grid import best_actions, policy_on_grid, value_on_grid
from plaudit.mdp.pictures.tables import alpha_vectors, q_table_picture, value_panels

__all__ = [
    "Curves",
    "alpha_vectors",
    "backup_diagram",
    "best_actions",
    "convergence",
    "learning_curves",
    "lines",
    "policy_on_grid",
    "q_backup_diagram",
    "q_table_picture",
    "study_curves",
    "value_on_grid",
    "value_panels",
]

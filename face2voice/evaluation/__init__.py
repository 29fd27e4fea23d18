"""Measures bundles on people and sentences they were not trained on."""

from .judge import Judge, find_judge
from .material import Material, find_material, held_out
from .report import to_html, to_json
from .run import PARTS, QUICK, Results, Settings, evaluate

__all__ = [
    "PARTS",
    "QUICK",
    "Judge",
    "Material",
    "Results",
    "Settings",
    "evaluate",
    "find_judge",
    "find_material",
    "held_out",
    "to_html",
    "to_json",
]

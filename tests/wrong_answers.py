"""Typical wrong answers to the exercises, and a piece of the sentence that each must get.

WRONG = {"exercise": [("code that defines the stub's name", "piece of the expected sentence"), ...]}
"""

WRONG: dict[str, list[tuple[str, str]]] = {}

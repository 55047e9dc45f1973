"""The checks of the exercises: one file per notebook, named as the notebook is without its number.

`check` holds what they share: how a check speaks, and what an exercise written in place hands on.
"""

"""The code that the notebooks share: one idea per file, later files import earlier ones.

Importing this package is free: torch and the rest are imported by the files that use them.
"""

__version__ = "1"  # raised when a notebook saved earlier would no longer run with these helpers


class CourseError(Exception):
    """A fault that the learner can mend: a notebook shows its one sentence and no stack trace."""

    def _render_traceback_(self) -> list[str]:
        """IPython's hook (7.34 and newer): the lines to show in place of a stack trace."""
        return [str(self)]


def require(version: str) -> None:
    """Raise CourseError unless a notebook written for `version` can run with these helpers."""
    if version != __version__:
        raise CourseError(
            f"This notebook is of course version {version} and the helpers are of version {__version__}: "
            "open a fresh copy of the notebook, or delete the old folder `course` and run this cell again."
        )

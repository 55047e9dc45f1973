"""Training: one loop for every model, and the files that it leaves.  Imported where first used."""

from helpers import lazy_exports

__getattr__ = lazy_exports(
    __name__,
    checkpoints=("load_shipped", "load_weights", "save_model"),
    filmstrip=("Filmstrip",),
    loop=("evaluate", "fit"),
)

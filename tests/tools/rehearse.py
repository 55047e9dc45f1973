"""Run notebooks on a device that is not the CPU, so that a tensor in the wrong place shows.

    python -m tests.tools.rehearse [NOTEBOOK ...]

For who has no GPU: torch_xla has a device of its own on every CPU, and its tensors do not mix with
the CPU's.  It wants an environment apart:

    python -m venv xla
    xla/bin/pip install "torch==2.9.*" "torch_xla==2.9.*" -r requirements.txt

It has no random generators.  Here the CPU draws for it; but as on a GPU a generator draws only for
the device that it was made for, and `numpy` takes only what is on the CPU.
"""

import contextlib
import io
import os
import subprocess
import sys
import time
from pathlib import Path

from helpers.env import survive_terminal
from tests.tools import common

SETTINGS = {"COURSE_PROFILE": "quick", "PJRT_DEVICE": "CPU", "TQDM_DISABLE": "1"}
SETTINGS |= {"COURSE_BUILD": str(common.ROOT / "build" / "rehearsal"), "MPLBACKEND": "agg"}


def like_a_gpu(device):
    """A mode in which torch is as strict about `device` as about a GPU."""
    import torch
    from torch.overrides import TorchFunctionMode
    from torch.utils._pytree import tree_leaves

    tensor = torch.Tensor
    moves = {tensor.copy_, tensor.to, tensor.__setitem__, torch._has_compatible_shallow_copy_type}
    to_numpy = {tensor.numpy, tensor.__array__}

    def check(function, tensors: list, arguments: dict) -> None:
        kinds = [t.device.type for t in tensors]
        mixed = {kind for t, kind in zip(tensors, kinds) if t.dim()}  # a single number may be mixed
        picks_on_it = function is tensor.__getitem__ and kinds[0] == device.type
        if len(mixed) > 1 and function not in moves and not picks_on_it:
            raise RuntimeError(f"{function.__name__}: expected all tensors to be on one device")
        if function in to_numpy and device.type in kinds:
            raise TypeError(f"can't convert a tensor of {device.type} to numpy")

    class LikeAGPU(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            kwargs = dict(kwargs or {})
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, tensor)]
            if not isinstance(function, type(tensor.device.__get__)):  # asking for an attribute
                check(function, tensors, kwargs)
            generator = kwargs.get("generator")
            if generator is None:
                return function(*args, **kwargs)
            usual = tensors[0].device if tensors else "cpu"
            wanted = torch.device(kwargs.get("device") or usual).type
            made_for = torch.device(getattr(generator, "made_for", "cpu")).type
            if wanted != made_for:
                raise RuntimeError(f"a generator of {made_for} cannot draw on {wanted}")
            if "device" in kwargs:
                kwargs["device"] = "cpu"
            args = [arg.cpu() if isinstance(arg, tensor) else arg for arg in args]
            return function(*args, **kwargs).to(wanted)

    return LikeAGPU()


def generator_class() -> type:
    """A torch.Generator of the CPU that remembers which device it was made for."""
    import torch

    class MadeForADevice(torch.Generator):
        shard = (0, 1)

        def __new__(cls, device="cpu"):
            generator = super().__new__(cls)
            generator.made_for = device
            return generator

        def __init__(self, device="cpu"):
            pass

    return MadeForADevice


def pretend(device) -> None:
    """Make `device` the course's; before any other module of the course is imported."""
    import torch
    from safetensors import torch as files

    from helpers import env, rng

    env.device = lambda: device
    rng.ShardedGenerator = torch.Generator = generator_class()

    # its tensors have no address, by which files would see that two of them share their memory
    address, size = files.storage_ptr, files.storage_size
    files.storage_ptr = lambda t: address(t) if t.device.type == "cpu" else id(t)
    files.storage_size = lambda t: size(t) if t.device.type == "cpu" else t.nbytes


def run_one(path: Path) -> str:
    """Run all cells of a notebook in this process; what went wrong, or nothing."""
    import torch
    from IPython.core.interactiveshell import InteractiveShell

    gru = torch.nn.GRU
    import torch_xla
    import torch_xla.experimental

    torch.nn.GRU = gru  # with that of torch_xla, which scans, the process ends without a word
    torch_xla.experimental.eager_mode(True)  # else it compiles every step of a training anew
    device = torch_xla.device()
    pretend(device)
    os.chdir(path.parent)
    shell = InteractiveShell.instance()
    cells = [c for c in common.read(path)["cells"] if c["cell_type"] == "code"]
    for number, cell in enumerate(cells):
        start = time.monotonic()
        said = io.StringIO()
        with contextlib.redirect_stdout(said), like_a_gpu(device):
            result = shell.run_cell(common.text(cell))
        error = result.error_before_exec or result.error_in_exec
        if error:
            first = (common.text(cell).strip().splitlines() or [""])[0]
            said_last = said.getvalue()[-3000:]  # the stack trace
            return f"cell {number} ({first[:60]}): {type(error).__name__}: {error}\n{said_last}"
        print(f"cell {number + 1}/{len(cells)}  {time.monotonic() - start:.1f} s", flush=True)
    return ""


def main(words: list[str]) -> int:
    """Rehearse each notebook in a process of its own; 1 if one of them failed."""
    survive_terminal()
    failed = []
    for path in common.select(words):
        print(f"\n=== {path.stem}", flush=True)
        code = f"from tests.tools import rehearse; rehearse.one({str(path)!r})"
        command = [sys.executable, "-c", code]
        if subprocess.run(command, cwd=common.ROOT, env=os.environ | SETTINGS).returncode:
            failed.append(path.stem)
    print(f"\nfailed: {', '.join(failed)}" if failed else "\nall passed")
    return 1 if failed else 0


def one(path: str) -> None:
    """What the process of one notebook does."""
    fault = run_one(Path(path))
    if fault:
        sys.exit(fault)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

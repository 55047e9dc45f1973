"""List results that are older than the code that makes them, or say that their numbers still hold.

    python -m tests.tools.restamp               lists them
    python -m tests.tools.restamp NAME ...      writes the code's fingerprint into these records

The second is for a change that moves no number, such as a renamed argument: compare first, with
the same seed, what the code before and after computes.  Everything else is for `make bench`.
"""

import json
import sys
from pathlib import Path

from helpers.env import survive_terminal, write_file
from tests.benchmarks.catalogue import writer_of
from tests.benchmarks.recipe_code import fingerprint
from tests.tools import common


def stale(root: Path = common.ROOT) -> dict[str, str]:
    """{name of a result: its code's fingerprint}, where the record holds another one."""
    found = {}
    for path in sorted((root / "data" / "results").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        code = fingerprint(writer_of(f"results/{path.stem}", root), record["profile"], root)
        if record["code"] != code:
            found[path.stem] = code
    return found


def main(names: list[str], root: Path = common.ROOT) -> int:
    """Stamp the results in `names`; without names list the stale ones, and 1 if there are any."""
    survive_terminal()
    found = stale(root)
    if not names:
        for name in found:
            writer = writer_of(f"results/{name}", root)
            print(f"{name}: `make bench BENCH={writer}` measures it again")
        return 1 if found else 0
    unknown = sorted(set(names) - set(found))
    if unknown:
        older = ", ".join(found) or "none"
        common.fail(f"{unknown[0]!r} is no result that is older than its code; these are: {older}.")
    for name in names:
        path = root / "data" / "results" / f"{name}.json"
        record = json.loads(path.read_text(encoding="utf-8")) | {"code": found[name]}
        write_file(path, json.dumps(record, indent=1) + "\n")
        print(f"{name}: stamped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

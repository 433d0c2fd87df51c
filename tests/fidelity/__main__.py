"""`python -m tests.fidelity [FOLDER…] [--misses]`; `make fidelity`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter

from tests.conftest import SHARED
from tests.fidelity.measure import counts, measured
from tests.fidelity.peers import GROUPS


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.fidelity", description=__doc__)
    arguments.add_argument("folder", nargs="*", help="of ../shared/samples, or `folder/file…`")
    arguments.add_argument("--misses", action="store_true", help="list what is not found")
    asked = arguments.parse_args()
    if not SHARED.is_dir():
        sys.exit("no ../shared beside the repository: nothing to compare with")
    wanted = tuple(asked.folder) or ("",)
    found = list(measured(SHARED, lambda file: file.startswith(wanted)))
    if asked.misses:
        for it in found:
            if not it.found:
                print(f"{it.file}  {it.peer} {it.field} = {it.value!r}")
                print(f"    {it.kinds}; {it.group} here: {', '.join(sorted(it.ours)) or 'nothing'}")
        print()
        missed = Counter((it.group, it.field, it.kinds) for it in found if not it.found)
        for (group, field, kinds), times in missed.most_common():
            print(f"{times:>5} {group:13} {field} ({kinds})")
        print()
    print(f"{'group':28}{'values':>7}{'found':>7}{'recall':>9}")
    total = counts(found, lambda it: "")[""] if found else Counter[str]()
    for group in GROUPS:
        print(f"{group:28}{total[group]:>7}{total[group + '+']:>7}{_percent(total, group):>9}")
    print("\n" + f"{'':28}" + "".join(f"{group:>13}" for group in GROUPS))
    for name, count in sorted(counts(found, lambda it: _name(it.file, it.peer)).items()):
        print(f"{name:28}" + "".join(f"{_share(count, group):>13}" for group in GROUPS))


def _name(file: str, peer: str) -> str:
    return f"{file.partition('/')[0]} {peer}"


def _percent(count: Counter[str], group: str) -> str:
    return f"{100 * count[group + '+'] / count[group]:.1f} %" if count[group] else "-"


def _share(count: Counter[str], group: str) -> str:
    return f"{count[group + '+']}/{count[group]}" if count[group] else ""


if __name__ == "__main__":
    main()

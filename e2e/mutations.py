"""What keeps the operator right is taken away, a piece at a time: the chaos run has to notice.

    make chaos-mutations                     # all of them
    python e2e/mutations.py epoch --minutes 2 --tries 4

Each is carried out on a copy of the source tree, in which the chaos run is then made, with one seed
after the other until one finds a fault. One that survives all of them makes this exit with 1: then
the faults are too tame, or the checker too kind.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
COPIED: Final = ("operator", "e2e", "tests", "tools", "crds", "manifests", "pyproject.toml")


@dataclass(frozen=True, slots=True)
class Change:
    """One replacement in one file. What goes has to be there exactly once."""

    file: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        assert text.count(self.old) == 1, f"{self.file} has changed: mend {Path(__file__).name}"
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Mutation:
    """A piece that is taken away."""

    changes: Sequence[Change]
    told: str
    """Pattern of the lines that tell of it. Another fault, say of a machine that is too busy, does
    not count."""
    deeds: str = ""
    """The only ones to be done, as of the chaos run: those that it has to do with. Empty: all."""


UNCONDITIONAL: Final = """\
        whole["metadata"] = {k: v for k, v in meta.items() if k != "resourceVersion"}
        merge = "application/merge-patch+json"
        return await self._request("PATCH", path, body=whole, headers={"Content-Type": merge})

    async def delete"""

MUTATIONS: Final[dict[str, Mutation]] = {
    # Whoever writes the ledger replaces what stands there, of whatever epoch it is, and the API
    # server has no rule against it either.
    "epoch": Mutation(
        (
            Change(
                "operator/warmpool/effects/kube.py",
                '        return await self._request("PUT", path, body=whole, headers=BRIEFLY)\n'
                "\n    async def delete",
                UNCONDITIONAL,
            ),
            Change(
                "manifests/rbac.yaml",
                "verbs: [get, create, update]\n  - apiGroups: [coord",
                "verbs: [get, create, update, patch]\n  - apiGroups: [coord",
            ),
            Change(
                "crds/bindingledgers.yaml",
                "- rule: self.epoch >= oldSelf.epoch",
                "- rule: self.epoch >= 0",
            ),
        ),
        r"I7: r\d+ of the ledger|r\d+ BindingLedger",
        deeds="freeze",
    ),
    # A new leader believes its watch, however far behind that is.
    "look": Mutation(
        (
            Change(
                "operator/warmpool/reconcile/term.py",
                "            await comparer.compare()\n",
                "",
            ),
        ),
        r"I5: |r\d+ (?:BindingLedger|VMClaim|WarmVM)",
        deeds="blind,lag",
    ),
    # What was asked for and is not seen yet counts for nothing.
    "expectations": Mutation(
        (
            Change(
                "operator/warmpool/reconcile/pools.py",
                "for ref, build in memory.creating.items() if not self._store.has_vm(ref)]",
                "for ref, build in memory.creating.items() if ref is None]",
            ),
        ),
        r"I5: ",
    ),
}


def mutate(names: Sequence[str], root: Path) -> None:
    """Carry mutations out in a copy of the source tree."""
    for name in names:
        for change in MUTATIONS[name].changes:
            change.apply(root)


def copy(root: Path) -> None:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)


def chaos(root: Path, *options: str) -> tuple[int, str]:
    """One run in a copy: its exit status, and what it says."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-s", "e2e/test_chaos.py", *options],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root / "operator"), "TMPDIR": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout


def attempts(name: str, arguments: argparse.Namespace) -> Iterator[list[str]]:
    """The faults that each run finds."""
    for attempt in range(arguments.tries):
        options = ["--minutes", str(arguments.minutes), "--seed", str(arguments.seed + attempt)]
        if deeds := arguments.deeds or MUTATIONS[name].deeds:
            options += ["--deeds", deeds]
        with tempfile.TemporaryDirectory(prefix="warmpool-mutation-") as folder:
            root = Path(folder)
            copy(root)
            mutate([name], root)
            status, said = chaos(root, *options)
        told = re.compile(rf"^(?:{MUTATIONS[name].told}).*$", re.MULTILINE)
        found = [line.group()[:300] for line in told.finditer(said)] if status else []
        print(f"{name}, seed {arguments.seed + attempt}: exit {status}, {len(found)} faults told")
        print("\n".join(f"  {fault}" for fault in found[:5]), flush=True)
        if status and not found:
            print("\n".join(said.splitlines()[-15:]), flush=True)
        yield found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(MUTATIONS)}; by default all")
    parser.add_argument("--minutes", type=float, default=2.0, help="of each run")
    parser.add_argument("--tries", type=int, default=4, help="runs until one counts as survived")
    parser.add_argument("--seed", type=int, default=1, help="of the first run")
    parser.add_argument("--deeds", default="", help="only these, and not the mutation's own")
    arguments = parser.parse_args()
    names = arguments.names or list(MUTATIONS)
    survivors = [name for name in names if not any(attempts(name, arguments))]
    print(f"survived: {', '.join(survivors) or 'none'}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())

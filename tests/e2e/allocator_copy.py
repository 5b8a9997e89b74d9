"""A copy of the allocator to be changed and built: mutants of its store order, shuffled structures.

The copy is built by the project's own Makefile. Objects of the build are taken along with their
times, so that only what was changed is compiled.
"""
import pathlib
import shutil
import subprocess

import heaptest


class AllocatorCopy:
    def __init__(self, with_objects=True):
        self.root = pathlib.Path(heaptest.folder())
        for name in ("allocator", "tests/tests.mk", "tests/step", "Makefile"):
            source, copy = heaptest.ROOT / name, self.root / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy)
            else:
                shutil.copy2(source, copy)
        if with_objects and (heaptest.BUILD / "allocator").is_dir():
            shutil.copytree(heaptest.BUILD / "allocator", self.root / "build/allocator")

    def change(self, file, old, new):
        """Replace the one place where old stands; else the test is out of date, and says so."""
        path = self.root / "allocator" / file
        text = path.read_text()
        if text.count(old) != 1:
            raise LookupError(f"{file} has {text.count(old)} times: {old.strip()}")
        path.write_text(text.replace(old, new))

    def build(self, *targets, flags=()):
        """Paths of the targets under build/."""
        paths = [f"build/{target}" for target in targets]
        made = subprocess.run(["make", "-s", "BUILD=build", *flags, *paths], cwd=self.root,
                              capture_output=True, text=True, timeout=300)
        if made.returncode != 0:
            raise RuntimeError((made.stdout + made.stderr)[-2000:])
        return [str(self.root / path) for path in paths]

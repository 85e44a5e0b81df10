"""Every name of timm with its parameters and default image size: tests/simulator/oracle/timm.csv.

Usage, from the repository's root, in an environment of its own with torch and timm (torchvision is
not needed; the core install needs none of them):

    python benchmarks/timm_names.py [NAME ...] > tests/simulator/oracle/timm.csv

With names, only those: all of timm take half an hour on two cores.
Models are built on the `meta` device, where parameters have shapes and no numbers.
"""

from __future__ import annotations

import csv
import enum
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for torchvision, from which timm imports data sets and transforms."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """A module of its own for every name under torchvision."""
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        """A module in which every name is a class."""
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: _stand_in(name)  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def _stand_in(name: str) -> Any:
    import torch

    if name.startswith("__"):
        raise AttributeError(name)
    if name == "InterpolationMode":
        modes = "NEAREST BILINEAR BICUBIC BOX HAMMING LANCZOS NEAREST_EXACT".split()
        return enum.Enum(name, modes)
    return type(name, (torch.nn.Module,), {})


def main() -> None:
    """Write a row per name."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.insert(0, Absent())
    import timm
    import torch

    print(f"# timm {timm.__version__}, torch {torch.__version__}; benchmarks/timm_names.py")
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("name", "parameters", "side"))
    for name in sys.argv[1:] or timm.list_models():
        try:
            with torch.device("meta"):
                model = timm.create_model(name)
            side = model.default_cfg.get("input_size", (3, 0, 0))[-1]
            out.writerow((name, sum(p.numel() for p in model.parameters()), side))
        except Exception as error:  # a few models compute with numbers as they are built
            print(f"{name}: {type(error).__name__}: {error}"[:200], file=sys.stderr)


if __name__ == "__main__":
    main()

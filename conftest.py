"""Modules that need an extra are not looked through for doctests where it is not installed."""

from importlib.util import find_spec

HERE = "simulator/importers/"
collect_ignore = [HERE + name for name in ("fake.py", "loader.py", "record.py", "torch_module.py") if not find_spec("torch")]
collect_ignore += [HERE + name for name in ("onnx_graph.py",) if not find_spec("onnx")]

"""Helpers that need an extra are not collected if it is not installed; the tests then skip."""

import sys
from importlib.util import find_spec
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # the helpers beside the tests
collect_ignore = [] if find_spec("torch") else ["torch_nets.py", "torch_quirks.py", "counting.py"]
collect_ignore += [] if find_spec("onnx") else ["onnx_nets.py"]

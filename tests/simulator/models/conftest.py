"""Puts the helpers beside these tests on the path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

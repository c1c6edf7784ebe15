import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path[:0] = [str(folder) for folder in sorted(TOOLS.iterdir()) if folder.is_dir()]

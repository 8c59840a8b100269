"""Run in an environment that holds the wheel and the core dependencies only: is the wheel whole?"""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import kern

SOURCE = Path(__file__).resolve().parents[1] / "kern"
INSTALLED = Path(kern.__file__).parent

if INSTALLED == SOURCE:
    sys.exit("this is the source tree, not the wheel")

wanted = {path.relative_to(SOURCE) for path in (*SOURCE.rglob("*.py"), SOURCE / "py.typed")}
missing = [str(path) for path in sorted(wanted) if not (INSTALLED / path).is_file()]
if missing:
    sys.exit(f"the wheel lacks {', '.join(missing)}")

if importlib.metadata.version("kern-agents") != kern.__version__:
    sys.exit("the wheel's version is not that of kern/_version.py")

# Without rich there are no panels, but everything works.
demo = subprocess.run([sys.executable, "-m", "kern.cli", "demo"], capture_output=True, text=True, check=False)
if demo.returncode != 0:
    sys.exit(f"kern demo fails without the extras:\n{demo.stdout}{demo.stderr}")
print(f"the wheel is whole: {len(wanted)} files, and kern demo works without the extras")

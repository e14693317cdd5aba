"""Run the tests of high-order-layers-torch, or of efficient-kan, on our layers.

    python tests/run_peer_suite.py PATH_OF_CHECKOUT [arguments of pytest]

Of the checkout only the folder tests/ is used, copied away from the package; test_examples.py, which needs
data sets, is left out. Exits as pytest does.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PLUGIN = """import sys
import high_order_fused.compat

high_order_fused.compat.install()


def pytest_sessionfinish(exitstatus):
    if exitstatus:  # of a run that stopped early nothing need have been imported
        return
    names = [name for name in sys.modules if name.startswith(high_order_fused.compat.PACKAGES)]
    strangers = [name for name in names if "compat" not in sys.modules[name].__name__]
    assert not strangers, f"the originals were imported: {strangers}"
"""


def main(checkout: str, *arguments: str) -> int:
    """Copy the tests, run them in a process that has called install()."""
    with tempfile.TemporaryDirectory() as folder:
        tests = Path(shutil.copytree(Path(checkout) / "tests", Path(folder) / "tests"))
        (tests / "test_examples.py").unlink(missing_ok=True)
        (tests / "conftest.py").write_text(PLUGIN)
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"]
        return subprocess.run([*pytest, *arguments], cwd=tests, check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))

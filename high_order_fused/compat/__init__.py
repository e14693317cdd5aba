"""install: programs written for high-order-layers-torch and efficient-kan run on our layers, unchanged.

The packages in this folder have the peers' modules and their public names; a name is the same object here,
in high_order_fused and under the peer's name, so `isinstance` and pickle work across them.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

PACKAGES = ("efficient_kan", "high_order_layers_torch")


class _Aliases(MetaPathFinder, Loader):
    """Finds a peer's module as the one of the same name in this package."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] not in PACKAGES or find_spec(f"{__name__}.{name}") is None:
            return None
        return ModuleSpec(name, self)

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(f"{__name__}.{module.__name__}")


_ALIASES = _Aliases()


def install() -> None:
    """From now on `import high_order_layers_torch` and `import efficient_kan` give ours, installed or not.

    Their submodules too. A second call does nothing. RuntimeError if one of the originals was imported
    before: what a program holds of it would stay the original. `hof.fuse` swaps the layers of such models.
    """
    for name, module in _imported().items():
        if not _is_ours(module):
            raise RuntimeError(
                f"{name} was imported before hof.compat.install(), which needs to come first; "
                "hof.fuse(model) swaps the layers of models that are already made"
            )
    if _ALIASES not in sys.meta_path:
        sys.meta_path.insert(0, _ALIASES)


def uninstall() -> None:
    """Undo `install`: imports give the originals again, where they are installed; objects stay."""
    if _ALIASES in sys.meta_path:
        sys.meta_path.remove(_ALIASES)
    for name, module in _imported().items():
        if _is_ours(module):
            del sys.modules[name]


def _imported() -> dict[str, ModuleType]:
    """The modules that are there under a peer's name."""
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES}


def _is_ours(module: ModuleType) -> bool:
    return module.__name__.startswith(f"{__name__}.")

"""LightningModule, or what says that Lightning is missing."""

from typing import Any

from torch import nn

try:
    from pytorch_lightning import (  # type: ignore[import-not-found, unused-ignore]
        LightningModule as LightningModule,
    )
except ModuleNotFoundError:

    class LightningModule(nn.Module):  # type: ignore[no-redef]
        """Stands where Lightning is not installed, so that classes can derive from it; none can be made."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            raise ModuleNotFoundError(
                f"{type(self).__name__} is a LightningModule: pip install pytorch-lightning brings it",
                name="pytorch_lightning",
            )

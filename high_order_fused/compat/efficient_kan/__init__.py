"""The package efficient_kan."""

from .kan import KAN, KANLinear

__all__ = ["KAN", "KANLinear"]

"""Polynomials of astropy, made by several threads at the same time.

A new polynomial adds the names of its coefficients to a table of its class while the others go through that table, and
one of the threads ends with "dictionary changed size during iteration" (astropy 8.0). Here they go through a copy.
"""

from functools import cache
from typing import Any


class _Copied(dict):
    def items(self) -> Any:
        # Copied in one piece. A list of pairs is not: each pair may start the garbage collector, which runs Python.
        return dict.copy(self).items()


@cache
def make_polynomials_safe() -> None:
    """Let threads make polynomials side by side; called before a file is read that may hold some."""
    from astropy.modeling import polynomial

    for name in polynomial.__all__:
        kind = getattr(polynomial, name)
        if issubclass(kind, polynomial.PolynomialBase):
            kind._parameters_ = _Copied(kind._parameters_)

"""Google's accountant, loaded without the statistics that no figure here passes through (decision 0030).

``dp_accounting`` imports ``scipy.stats``, ``scipy.signal`` and ``scipy.optimize``: two thirds of its 2.4 s. Composing
Gaussians takes three functions of the normal distribution and one convolution of them, which are a line each over
``scipy.special`` and ``scipy.fft``. While it is imported, those three modules are stand-ins with these functions;
whatever else is asked of a stand-in comes from the real module, which is loaded then. Afterwards the stand-ins are
gone: nobody but ``dp_accounting`` has them.

Guarantee: figures are the same to the bit (``tests/common/privacy/test_google_accounting.py``). Where the real modules
are loaded already, or other threads run that might import them meanwhile, nothing is replaced.
"""

import importlib
import sys
import threading
from types import ModuleType
from typing import Any, Final

STOOD_IN_FOR: Final = ("scipy.stats", "scipy.signal", "scipy.optimize")


def google_accounting() -> Any:
    """Import ``dp_accounting``: half a second the first time, which commands that never account do not pay."""
    alone = threading.active_count() == 1 and threading.current_thread() is threading.main_thread()
    if "dp_accounting" in sys.modules or not alone or any(name in sys.modules for name in STOOD_IN_FOR):
        return importlib.import_module("dp_accounting")
    for real in ("scipy.fft", "scipy.special"):
        importlib.import_module(real)
    sys.modules.update({name: _StandIn(name) for name in STOOD_IN_FOR})
    try:
        return importlib.import_module("dp_accounting")
    finally:
        for name in STOOD_IN_FOR:
            if isinstance(sys.modules[name], _StandIn):
                del sys.modules[name]


class _StandIn(ModuleType):
    """One of the three modules, with the functions below; anything else is the real module's."""

    def __getattr__(self, name: str) -> Any:
        if (self.__name__, name) in _FUNCTIONS:
            return _FUNCTIONS[self.__name__, name]
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


class _Normal:
    """``scipy.stats.norm``, frozen or not, as far as privacy losses of Gaussians need it."""

    def __init__(self, loc: float = 0.0, scale: float = 1.0) -> None:
        self._loc, self._scale = loc, scale

    def __call__(self, loc: float = 0.0, scale: float = 1.0) -> "_Normal":
        return _Normal(loc, scale)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_real("scipy.stats").norm(self._loc, self._scale), name)

    def cdf(self, x: Any) -> Any:
        return _special().ndtr(self._standard(x))

    def logcdf(self, x: Any) -> Any:
        return _special().log_ndtr(self._standard(x))

    def ppf(self, q: Any) -> Any:
        return _special().ndtri(q) * self._scale + self._loc

    def _standard(self, x: Any) -> Any:
        numpy = importlib.import_module("numpy")
        return (numpy.asarray(x, dtype=float) - self._loc) / self._scale


def _convolved(first: Any, second: Any, *more: Any, **named: Any) -> Any:
    """``scipy.signal.fftconvolve`` of two real vectors, whole; anything else is the real one's."""
    numpy, fft = importlib.import_module("numpy"), importlib.import_module("scipy.fft")
    first, second = numpy.asarray(first), numpy.asarray(second)
    plain = not more and not named and first.ndim == second.ndim == 1 and first.size > 0 and second.size > 0
    if plain and 1 in {first.size, second.size} and first.dtype.kind in "if" and second.dtype.kind in "if":
        return first * second
    if not plain or not first.dtype == second.dtype == numpy.float64:
        return _real("scipy.signal").fftconvolve(first, second, *more, **named)
    length = first.size + second.size - 1
    fast = fft.next_fast_len(length, True)
    return fft.irfftn(fft.rfftn(first, [fast]) * fft.rfftn(second, [fast]), [fast])[:length].copy()


def _real(name: str) -> ModuleType:
    if isinstance(sys.modules.get(name), _StandIn):
        del sys.modules[name]
    return importlib.import_module(name)


def _special() -> Any:
    return importlib.import_module("scipy.special")


_FUNCTIONS: Final = {("scipy.stats", "norm"): _Normal(), ("scipy.signal", "fftconvolve"): _convolved}

"""Which of the packages that an extra brings are not there."""

from importlib.util import find_spec


def missing(*modules: str) -> list[str]:
    """Those that are not installed; nothing but the packages that they lie in is imported."""
    return [module for module in modules if not _is_installed(module)]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package that it lies in is not there
        return False

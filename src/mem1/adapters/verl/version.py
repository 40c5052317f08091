"""WHICH VERL THIS IS WRITTEN FOR: any other one is refused, with what to install."""

from importlib.metadata import PackageNotFoundError, version

from mem1.errors import UserError

VERSION = "0.9.1"


class VerlVersionError(UserError):
    """verl isn't there, or is of a version whose inner parts are others."""


def check_verl(wanted: str = VERSION) -> None:
    """Raises: VerlVersionError unless verl is installed in the version that we know."""
    install = "run  pip install 'mem1-rl[verl]'  in an environment of its own (docs/verl.md)"
    try:
        found = version("verl")
    except PackageNotFoundError as error:
        raise VerlVersionError(f"verl is not installed: {install}") from error
    if found != wanted:
        raise VerlVersionError(
            f"verl {found} is installed, and its trainer is another one: mem1 needs verl {wanted}, "
            f"{install}"
        )

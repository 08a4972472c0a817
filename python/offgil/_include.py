"""Where the C++ headers are."""

from pathlib import Path

from offgil import _core


def get_include() -> str:
    """Return the folder to search for ``offgil/sdk.hpp``, for a compiler's ``-I``."""
    # Beside the extension, which need not lie beside this file in an editable installation.
    return str(Path(_core.__file__).with_name("include"))

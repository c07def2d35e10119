"""How the scripts end: a user's mistake is one line and exit status 1, anything else a traceback."""

import functools
import sys
import warnings
from collections.abc import Callable
from typing import Any

from mpq.errors import UserError


def guarded(main: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a script's main function."""

    @functools.wraps(main)
    def wrapped(*arguments: Any, **settings: Any) -> Any:
        warnings.filterwarnings("ignore", module=r"(lightning|torch|transformers|wandb)(\..*)?$")
        try:
            return main(*arguments, **settings)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
            sys.exit(130)

    return wrapped

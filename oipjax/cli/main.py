"""The command line. Whatever is wrong with the input is one short message and exit code 2."""

import gc
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import tyro

import oipjax

COMMANDS = ("atlas", "oip", "activations", "bounds", "layers", "train")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 for bad input."""
    if arguments is None:
        arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        print(f"oipjax {oipjax.__version__}")
        return 0
    _use_compilation_cache()
    description = "Find the input patterns that trigger the maps of a trained CNN most.\n\nExample: oipjax atlas --maps 0,5,120"
    config = (tyro.conf.FlagCreatePairsOff,)
    try:
        if arguments and arguments[0] in COMMANDS:
            # One command is imported, not all of them.
            name, *rest = arguments
            tyro.cli(_command(name), prog=f"oipjax {name}", args=rest, config=config)
        else:
            commands = {name: _command(name) for name in COMMANDS}
            tyro.extras.subcommand_cli_from_dict(
                commands, prog="oipjax", description=description, args=arguments, config=config
            )
    except ValueError as error:
        print(f"oipjax: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"oipjax: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "oipjax: interrupted; what was finished is kept, and the same call goes on from there",
            file=sys.stderr,
        )
        return 130
    return 0


def run() -> int:
    """`main`, for a process of its own."""
    # Programs are traced with hundreds of thousands of objects that live until the end: looking for
    # garbage among them takes a twentieth of the time, and once more at the end as long as a
    # picture takes.
    gc.set_threshold(100_000, 50, 50)
    code = main()
    gc.freeze()
    return code


def _command(name: str) -> Callable[..., None]:
    return getattr(importlib.import_module(f"oipjax.cli.{name}"), name)


def _use_compilation_cache() -> None:
    """Keep compiled programs between runs; small ones too, which JAX skips unless told otherwise."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "oipjax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


if __name__ == "__main__":
    sys.exit(run())

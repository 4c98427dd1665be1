"""The command line. Wrong input is reported in one short message, with exit code 2."""

import gc
import importlib
import os
import sys
from pathlib import Path

import oipjax
from oipjax.cli import flags

COMMANDS = {
    "atlas": "find the input patterns of all maps of a layer",
    "oip": "watch the pattern of one map evolve out of a random start",
    "activations": "show how the maps of a network respond to images",
    "bounds": "print what is proved of the maps of a layer",
    "layers": "list the layers of a network, their maps and nodes",
    "train": "train a classifier or an autoencoder",
}
"""The commands, with a line for a person; each is a function in a module, both of this name."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, or 2 for wrong input."""
    if arguments is None:
        arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        print(f"oipjax {oipjax.__version__}")
        return 0
    if arguments in (["--help"], ["-h"]):
        print(_overview())
        return 0
    name, *rest = arguments or [""]
    if name not in COMMANDS:
        problem = f"no command {name!r}" if arguments else "expected a command"
        return _refuse(f"{problem}; there are {', '.join(COMMANDS)}, see oipjax --help")
    try:
        _call(name, rest)
    except (ValueError, flags.BadOption) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename or ''}: {error.strerror or error}")
    except KeyboardInterrupt:
        print(
            "oipjax: interrupted; finished parts are kept, and the same call goes on from there",
            file=sys.stderr,
        )
        return 130
    return 0


def run() -> int:
    """`main`, for a process of its own."""
    # Tracing makes hundreds of thousands of objects that live until the end. To look for garbage
    # among them takes a twentieth of the time, and once more at the end as long as a picture takes.
    gc.set_threshold(100_000, 50, 50)
    code = main()
    gc.freeze()
    return code


def _call(name: str, arguments: list[str]) -> None:
    # JAX is imported here, and of the commands only the one that is called.
    from oipjax.cli.options import RULES

    use_compilation_cache()
    command = getattr(importlib.import_module(f"oipjax.cli.{name}"), name)
    if isinstance(command, flags.Varying):
        command = command.choose(arguments)
    flags.call(command, f"oipjax {name}", arguments, RULES)


def _overview() -> str:
    """The help text about all commands."""
    lines = [
        "usage: oipjax COMMAND [OPTIONS], or oipjax COMMAND --help",
        "",
        "Find the input patterns that trigger the maps of a trained CNN most.",
        "",
        "Example: oipjax atlas --maps 0,5,120",
        "",
    ]
    for name, description in COMMANDS.items():
        lines.append(f"  {name:<12} {description}")
    return "\n".join([*lines, "", "  --version    print the version"])


def _refuse(message: str) -> int:
    print(f"oipjax: {message}", file=sys.stderr)
    return 2


def use_compilation_cache() -> None:
    """Keep compiled programs between runs; small ones too, which JAX skips by default."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "oipjax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


if __name__ == "__main__":
    sys.exit(run())

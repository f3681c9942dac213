"""The ``fedsi`` command and its exit codes.

0: done. 1: it could not be finished (interrupted, or the nodes failed). 2: bad input; one sentence
on standard error says what, where, what was expected and what to do.
"""

import errno
import io
import os
import re
import sys
import warnings
from typing import Annotated

import click
import typer
from click.exceptions import NoArgsIsHelpError

import fedsi
from fedsi.errors import UnfinishedError, UserError
from fedsi.host_memory import check_address_space, is_out_of_memory
from simulations.cli import options
from simulations.cli.attack import attack
from simulations.cli.audit import audit
from simulations.cli.bench.commands import bench
from simulations.cli.compare import compare
from simulations.cli.conformance import conformance
from simulations.cli.data import data
from simulations.cli.deviations import deviations
from simulations.cli.doctor import doctor
from simulations.cli.evaluate import evaluate
from simulations.cli.experts import experts
from simulations.cli.export import export
from simulations.cli.keys import keys
from simulations.cli.lengths import lengths
from simulations.cli.node import node
from simulations.cli.plot import plot
from simulations.cli.predict import generate, predict
from simulations.cli.presets import presets
from simulations.cli.privacy import PrivacyCommand, privacy
from simulations.cli.report import report
from simulations.cli.run import run
from simulations.cli.signals import terminated_like_interrupted
from simulations.cli.study import study, sweep
from simulations.cli.suggest_lr import suggest_lr
from simulations.cli.tradeoff import tradeoff
from simulations.cli.try_model import try_model
from simulations.engines.alarm import own_process
from simulations.safe_text import is_of_a_library, log_to_stderr, one_line

_INTERRUPTED = 130

app = typer.Typer(
    help="Simulate federated learning of small on-device language models.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command()(compare)
app.command()(tradeoff)
app.command()(lengths)
app.command()(study)
app.command()(sweep)
app.command(name="suggest-lr")(suggest_lr)
app.command()(predict)
app.command()(generate)
app.command(name="try")(try_model)
app.command()(evaluate)
app.command()(deviations)
app.command()(export)
app.command()(plot)
app.command()(report)
app.command()(audit)
app.command()(attack)
app.command()(experts)
app.command()(conformance)
app.command(cls=PrivacyCommand)(privacy)
app.command()(doctor)
app.command()(presets)
app.command()(keys)
app.command()(node)
app.add_typer(data, name="data")
app.add_typer(bench, name="bench")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Simulate federated learning of small on-device language models."""
    if version:
        typer.echo(f"fedsi {fedsi.__version__}")
        raise typer.Exit


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    log_to_stderr()
    _open_streams()
    if "" not in sys.path:  # a user's model may be in the working folder
        sys.path.append("")
    with warnings.catch_warnings(), terminated_like_interrupted(), own_process():
        warnings.showwarning = _show_warning
        try:
            check_address_space()  # before anything loads OpenBLAS
            code = app(arguments, standalone_mode=False)
            sys.stdout.flush()  # here, so that a full disk is reported in a sentence
        except NoArgsIsHelpError:
            return 2  # the help was printed
        except BrokenPipeError:  # the reader of the output has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt:  # while Typer builds the commands, where nothing catches it
            return _fail("interrupted", 1)
        except Exception as error:
            failure = _failure(error)
            if failure is None:
                raise
            return _fail(*failure)
        finally:
            options.remove_unused()
    # Typer turns a Ctrl-C that no command caught into its own code.
    return _fail("interrupted", 1) if code == _INTERRUPTED else int(code or 0)


def _open_streams() -> None:
    """Make standard streams safe to write to: closed ones are replaced, any character is accepted.

    If a stream is closed (``>&-``), the next file that is opened would get its number, and then
    receive the output of other programs.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            stream = os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8")
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper) and name != "stdin":
            stream.reconfigure(errors="backslashreplace")  # for characters its encoding lacks


def _failure(error: Exception) -> tuple[str, int] | None:
    """Return the sentence and the exit code for an expected error."""
    match error:
        case UserError():
            return str(error), 2
        case click.ClickException():
            return _usage(error), 2
        case ModuleNotFoundError(name="fcntl" | "resource"):
            return (
                f"this system has no {error.name}: fedsi runs on Linux and macOS; on Windows use "
                "the Windows Subsystem for Linux"
            ), 2
        case UnfinishedError():
            return str(error), 1
    if is_out_of_memory(error):
        reason = str(error) or type(error).__name__
        return (
            f"out of memory ({reason}); use fewer workers, or a smaller model, vocabulary, "
            "sequence length or batch size"
        ), 1
    return _system_failure(error) if isinstance(error, OSError) else None


def _usage(error: click.ClickException) -> str:
    """Describe a usage error and its correction."""
    # Click and typer both make the same suggestion.
    sentence = re.sub(r"( Did you mean [^?]+\?)\1", r"\1", error.format_message())
    if isinstance(error, click.NoSuchOption):
        from fedsi.experiment import Experiment
        from fedsi.experiment.explanations import nearest_keys

        name = error.option_name.lstrip("-").replace("-", "_")
        if keys := nearest_keys(name, sorted(Experiment().flat())):
            what, _, _ = sentence.partition(" Did you mean")
            return f"{what} Keys are given with --set, as in --set {keys[0]}=VALUE"
    if isinstance(error, click.UsageError) and error.ctx:
        return f"{sentence.rstrip('.')}. See {error.ctx.command_path} --help"
    return sentence


def _system_failure(error: OSError) -> tuple[str, int] | None:
    """Return the sentence and the exit code for an error of the operating system."""
    match error.errno:
        case errno.ENOSPC | errno.EIO:
            return f"cannot write: {error.strerror}; free some space", 1
        case errno.ENAMETOOLONG:
            return f"{error.filename} is too long for a file name; give a shorter one", 2
        case errno.EMFILE | errno.ENFILE | errno.EAGAIN | errno.ENOMEM:
            return (
                f"the system has no resources left: {error.strerror}; use fewer workers or jobs",
                1,
            )
    return None


def _fail(sentence: str, code: int) -> int:
    sys.stderr.write(f"error: {one_line(sentence)}\n")
    return code


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, *_: object, **__: object
) -> None:
    del category
    if not is_of_a_library(filename):
        sys.stderr.write(f"warning: {one_line(str(message))}\n")


if __name__ == "__main__":
    sys.exit(main())

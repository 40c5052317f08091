"""The command line: parse, call, print.

    mem1 run "question" --config configs/demo.toml     one episode, turn by turn
    mem1 eval configs/demo.toml                        tasks x context policies -> report
    mem1 rollout configs/demo.toml                     the trajectories alone
    mem1 report runs/demo                              the report of a run, written again
    mem1 report --horizon runs/demo runs/large         what becomes of agents as N grows
    mem1 train configs/learn.toml                      a policy, trained on what it ran
    mem1 plan configs/learn.toml                       what will run where, and whether it fits
    mem1 verify --model FOLDER                         trained = run, as a number
    mem1 view | show | export runs/demo                look at a run, or hand it on
    mem1 data list | compose | index | export          prepare tasks and corpora
    mem1 serve retriever CORPUS                        search for other programs

Results go to standard output, everything else to standard error. Exit status: 0; 1 if episodes
or an engine failed, or a model is not exact; 2 for a mistake of the user; 130 if interrupted.
Commands import what they need when they run, so that `mem1 --help` is quick.
"""

import importlib.metadata
import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from mem1.cli import data, look, policies, runs, servers
from mem1.cli.options import note
from mem1.cli.plan import plan
from mem1.errors import Mem1Error, UserError

_PLAIN = Parameter(negative=(), show_default=False)
app = App(
    name="mem1",
    help="LLM agents whose context never grows: run them, train them, measure them.",
    version=lambda: importlib.metadata.version("mem1-rl"),
    default_parameter=_PLAIN,
    suppress_keyboard_interrupt=False,
)
app.command(runs.run)
app.command(runs.evaluate, name="eval")
for command in (runs.rollout, runs.report, policies.train, policies.verify, plan):
    app.command(command)
for command in (look.view, look.show, look.export):
    app.command(command)
prepare = App(name="data", help="Prepare tasks and corpora.", default_parameter=_PLAIN)
for command in (data.compose, data.index, data.export):
    prepare.command(command)
prepare.command(data.catalogue, name="list")
app.command(prepare)
server = App(name="serve", help="Serve something to other programs.", default_parameter=_PLAIN)
server.command(servers.retriever)
app.command(server)


def main() -> None:
    """The `mem1` command."""
    # Model libraries draw bars and print hints of their own, which would tear ours apart.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """Run one command and give its exit status."""
    try:
        status = app(arguments, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return 2
    except KeyboardInterrupt:
        note("stopped: what is finished is kept; the same command continues where this one ended")
        return 130
    except Mem1Error as error:
        note(f"mem1: {error}")
        return 2 if isinstance(error, UserError) else 1
    return status or 0

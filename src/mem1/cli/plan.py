"""The command that says what will run where, before anything is loaded."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from mem1.cli.options import AsJson, Configs, Sets, load, note, screen

if TYPE_CHECKING:
    from rich.console import Console

    from mem1.plan import Plan


def plan(
    *configs: Configs,
    overrides: Sets = (),
    devices: Annotated[
        int | None, Parameter(help="Devices to plan for; else this machine's.")
    ] = None,
    memory: Annotated[
        str | None, Parameter(help="Of each device: 80GB, 24GiB; else this machine's.")
    ] = None,
    fill: Annotated[
        float, Parameter(help="Share of their caps that contexts are expected to take.")
    ] = 0.5,
    as_json: AsJson = False,
) -> int:
    """Say what will run where, the bound, the memory it takes, and whether it fits."""
    from mem1.plan import parse_memory, plan_run, this_machine

    settings = load(configs, overrides=overrides)
    machine = this_machine(
        on_cpu=getattr(settings.engine, "device", None) == "cpu",
        devices=devices,
        memory=parse_memory(memory) if memory else None,
    )
    found = plan_run(settings, machine, fill=fill)
    if as_json:
        verdict = {"peak": found.peak, "kept_free": found.kept_free, "fits": found.fits}
        print(json.dumps(asdict(found) | verdict, default=str))
    else:
        _show(screen(), found)
    for problem in found.problems:
        note(f"mem1: {problem}")
    return 0 if found.fits else 2


def _show(console: "Console", plan: "Plan") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    for name, value in _facts(plan):
        console.print(Text.assemble((f"{name:<15}", "bold"), value), soft_wrap=True)
    if not plan.items:
        return
    unit = "MiB" if plan.peak < 2**30 else "GiB"

    def told(size: int) -> str:
        return f"{size / (2**20 if unit == 'MiB' else 2**30):,.2f}"

    table = Table(
        title=f"memory on each device, at most, in {unit}", title_justify="left", box=SIMPLE_HEAD
    )
    table.add_column("", no_wrap=True)
    for phase in plan.phases:
        table.add_column(phase, justify="right")
    for item in plan.items:
        sizes = (told(item.bytes) if phase in item.phases else "" for phase in plan.phases)
        table.add_row(item.name + (" (offloaded)" if item.on_host else ""), *sizes)
    table.add_section()
    table.add_row("in all, on the device", *map(told, plan.phases.values()), style="bold")
    console.print(table)
    if plan.host:
        size = plan.host / 2**30
        console.print(f"the machine's own memory: up to {size:,.0f} GiB for all processes")
    had = f"{told(plan.peak)} and {told(plan.kept_free)} kept free, of {told(plan.machine.memory)}"
    if plan.has_room:
        console.print(Text(f"it has room: {had} {unit}", style="green"))
        return
    console.print(Text(f"too large: {had} {unit}", style="red"))
    for changes in plan.advice:
        console.print(Text(f"  fits with  {' and '.join(map(str, changes))}"), soft_wrap=True)
    if not plan.advice:
        console.print("  no setting makes it fit: take a smaller model or larger devices,")
        console.print("  which  --devices 8 --memory 80GB  describes")


def _facts(plan: "Plan") -> list[tuple[str, str]]:
    """What is told above the table."""
    trained = f", {plan.trained:,} of them train" if 0 < plan.trained == plan.parameters else ""
    if 0 < plan.trained < plan.parameters:
        trained = f", and {plan.trained:,} of adapters, which train"
    critic = f"; critic {plan.critic:,}" if plan.critic else ""
    bound = "none" if plan.bound is None else f"{plan.bound:,} tokens"
    window = "not known" if plan.window is None else f"{plan.window:,}"
    found = [
        ("model", f"{plan.model}, {plan.dtype}"),
        ("parameters", f"{plan.parameters:,}{trained}{critic}"),
        ("where", "; ".join(plan.places)),
        ("bound", f"{bound} ({', '.join(plan.context_policies)}; the model's window: {window})"),
    ]
    if plan.step_tokens:
        most = "no bound" if plan.step_tokens.most is None else f"at most {plan.step_tokens.most:,}"
        expected = f"{plan.step_tokens.expected:,} expected"
        found.append(("tokens a step", f"{most}, {expected}; rows of {plan.row_tokens:,}"))
    return found

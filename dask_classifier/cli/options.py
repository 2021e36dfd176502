"""The options that several commands share."""

import click

from ..parts.formats import FORMATS
from .completion import CLASSIFIER, FILE, FOLDER, FORMAT


def plan_options(command):
    """The options that say what to do, common to `run` and `plan`."""
    options = [
        click.option("--rows", metavar="N", help="Classify N generated rows: 250k, 10M."),
        click.option(
            "--input", type=FILE, metavar="URL", multiple=True, help="A CSV file or a glob, local or s3://; repeatable."
        ),
        click.option(
            "--output", type=FOLDER, metavar="URL", help="Folder of the run, local or s3://.  [default: runs/RUN-ID]"
        ),
        click.option(
            "--classifier",
            type=CLASSIFIER,
            metavar="NAME",
            help="path/to/file.py:name, module:name, or blackbox, the demo's. It gets every value as text; a missing "
            "one is the empty text, never NaN.  [required with --input]",
        ),
        click.option(
            "--with-file",
            type=FILE,
            metavar="FILE",
            multiple=True,
            help="A file that the classifier reads; repeatable.",
        ),
        click.option(
            "--slowness",
            default="10",
            show_default=True,
            metavar="N",
            help="Cost of the black box: 10 is about 3.5 ms per row.",
        ),
        click.option("--seed", metavar="N", default=0, show_default=True, help="Of the generated rows."),
        click.option(
            "--delimiter", default=",", show_default=True, metavar="C", help="Of the input: one character, or \\t."
        ),
        click.option("--encoding", metavar="NAME", default="utf-8", show_default=True, help="Of the input."),
        click.option(
            "--header-row/--no-header-row",
            default=True,
            show_default=True,
            help="Whether the input's first row has the names.",
        ),
        click.option(
            "--chunk-rows", default="100", show_default=True, metavar="N", help="Rows the classifier sees at a time."
        ),
        click.option(
            "--block-rows",
            default="auto",
            show_default=True,
            metavar="N",
            help="Rows of a task and of a part, in whole chunks; auto: about 20 seconds of work, as measured.",
        ),
        click.option("--output-format", type=FORMAT, default="csv.gz", show_default=True, metavar="|".join(FORMATS)),
        click.option(
            "--header/--no-header",
            default=False,
            show_default=True,
            help="Whether the first part begins with a header line.",
        ),
        click.option(
            "--max-bad",
            default="0",
            show_default=True,
            metavar="N|P%",
            help="Bad rows that are set aside before the run stops with exit code 3.",
        ),
        click.option("--block-timeout", metavar="TIME", help="End a process that takes longer for a block: 10m."),
        click.option(
            "--renew-after",
            metavar="SIZE|N",
            help="Replace a process that holds more memory, or has done N blocks, for a classifier that leaks: 2GiB.",
        ),
        click.option("--resume", is_flag=True, help="Go on with the run in --output, if there is one."),
        click.option("--overwrite", is_flag=True, help="Give up the run in --output."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def machine_options(command):
    """The options that say what machines to start on EC2, common to `run`, `up` and `doctor`."""
    options = [
        click.option("--region", metavar="NAME", help="Of AWS.  [default: AWS's own configuration]"),
        click.option("--image", metavar="NAME:TAG", help="Docker image that all machines run; see `make push`."),
        click.option(
            "--instance-type",
            metavar="TYPE,...",
            help="Of the workers; the next when there is no capacity.  [default: c7i.large,c6i.large,c5.large]",
        ),
        click.option("--scheduler-instance-type", metavar="TYPE,...", help="[default: t3.small, or t4g.small for ARM]"),
        click.option("--ami", metavar="ID", help="[default: Amazon Linux with Docker, the newest]"),
        click.option(
            "--instance-profile",
            metavar="NAME",
            help="For the machines' rights in S3.  [default: temporary ones of yours]",
        ),
        click.option("--subnet", metavar="ID,...", help="[default: those of the default VPC]"),
        click.option("--security-group", metavar="ID,...", help="[default: one made for the cluster, for you alone]"),
        click.option("--private-ip", is_flag=True, help="No public addresses: you are within the VPC."),
        click.option("--spot", is_flag=True, help="Spot instances for workers; on-demand where there are none."),
        click.option("--deadline", metavar="TIME", help="When machines end themselves, come what may.  [default: 2h]"),
        click.option("--bring-up-limit", metavar="TIME", help="For the first machines to work.  [default: 10m]"),
        click.option("--idle-timeout", metavar="TIME", help="A scheduler without work ends.  [default: 15m]"),
        click.option("--teardown-limit", metavar="TIME", help="For all machines to be gone.  [default: 5m]"),
        click.option("--min-workers", type=int, metavar="N", help="With fewer, do not begin.  [default: 1]"),
        click.option("--processes-per-worker", type=int, metavar="N", help="[default: one for each vCPU]"),
        click.option("--key-name", metavar="NAME", help="An EC2 key pair, for ssh; opens port 22 to you."),
        click.option("--tag", metavar="KEY=VALUE", multiple=True, help="For all machines; repeatable."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class Grouped(click.Command):
    """A command whose help shows the options about machines by themselves."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write two lists."""
        mine, machines = [], []
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                (machines if param.name in MACHINE_OPTIONS else mine).append(record)
        for title, records in (("Options", mine), ("Options for machines on EC2", machines)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=24)


MACHINE_OPTIONS = [option.name for option in click.command()(machine_options(lambda **options: None)).params]

"""The options that several commands share."""

import click

from ..parts.formats import FORMATS
from .completion import CLASSIFIER, FILE, FOLDER, FORMAT


def _with(command, options):
    """Add options to a command, in order."""
    for option in reversed(options):
        command = option(command)
    return command


ONLY_WITHOUT_IMAGE = ("base_image", "index_url", "wheels", "requirements", "with_env")
_REQUIREMENTS = "File like pip's requirements.txt: packages that the classifier needs."


def _requirement_options(more: str) -> list:
    return [
        click.option("--requirements", type=FILE, metavar="FILE", help=f"{_REQUIREMENTS}{more}"),
        click.option("--with-env", is_flag=True, help="The classifier needs all packages that are installed here."),
    ]


def requirement_options(command):
    """Add the options that say what a classifier needs, to commands that have no classifier."""
    return _with(command, _requirement_options(""))


def plan_options(command):
    """Add the options that describe the work, common to `run` and `plan`."""
    options = [
        click.option("--rows", metavar="N", help="Classify N generated rows: 250k, 10M."),
        click.option(
            "--input",
            type=FILE,
            metavar="URL",
            multiple=True,
            help="File, folder or glob pattern, local or s3://: CSV, Parquet or JSON Lines; repeatable.",
        ),
        click.option(
            "--output", type=FOLDER, metavar="URL", help="Folder of the run, local or s3://.  [default: runs/RUN-ID]"
        ),
        click.option(
            "--at",
            metavar="TIME",
            help="Time for {date}, {hour}, {year}, {month} and {day} in --input and --output: 2026-11-26T07 (UTC), "
            "or -1h for an hour ago.  [default: now]",
        ),
        click.option(
            "--classifier",
            type=CLASSIFIER,
            metavar="NAME",
            help="Function or class: path/to/file.py:name, module:name, or blackbox (the demo). Without "
            "--dtype, --infer-types or --typed, it receives every value as text, and missing values as empty text, "
            "never NaN.  "
            "[required with --input]",
        ),
        click.option(
            "--with-file",
            type=FILE,
            metavar="FILE",
            multiple=True,
            help="File that the classifier reads, sent along with it; repeatable.",
        ),
        *_requirement_options(" Those in a block '# /// script' of its file (PEP 723) are added."),
        click.option(
            "--slowness",
            default="10",
            show_default=True,
            metavar="N",
            help="Cost of the black box; 10 is about 3.5 ms per row.",
        ),
        click.option("--seed", metavar="N", default=0, show_default=True, help="Seed of the generated rows."),
        click.option(
            "--delimiter",
            default=",",
            show_default=True,
            metavar="C",
            help="Delimiter of the input: one character, or \\t.",
        ),
        click.option("--encoding", metavar="NAME", default="utf-8", show_default=True, help="Encoding of the input."),
        click.option(
            "--header-row/--no-header-row",
            default=True,
            show_default=True,
            help="Whether the first row of the input contains the column names.",
        ),
        click.option("--columns", metavar="NAME,...", help="Columns that the classifier gets, in this order."),
        click.option(
            "--index",
            metavar="NAME|none",
            default="",
            help="Column that becomes the chunks' index; none: the row's number, in a column named row.  "
            "[default: the first]",
        ),
        click.option("--typed", is_flag=True, help="Give the classifier the types of Parquet files, not text."),
        click.option(
            "--dtype",
            metavar="NAME=TYPE,...",
            help="Types of columns of CSV or JSON Lines, as pandas names them: price=float64,when=datetime64.",
        ),
        click.option(
            "--infer-types", is_flag=True, help="Guess the types of the other columns from rows all over the input."
        ),
        click.option(
            "--na-values", metavar="TEXT,...", help="More texts that are missing values in columns with a type."
        ),
        click.option("--limit", metavar="N", help="Classify only the first N rows, to try something out."),
        click.option(
            "--chunk-rows", default="100", show_default=True, metavar="N", help="Rows per call of the classifier."
        ),
        click.option(
            "--block-rows",
            default="auto",
            show_default=True,
            metavar="N",
            help="Rows per task and per part, rounded up to whole chunks; auto: about 20 seconds of work.",
        ),
        click.option(
            "--output-format",
            type=FORMAT,
            default="csv.gz",
            show_default=True,
            metavar="|".join(FORMATS),
            help="Format of the parts.",
        ),
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
            help="Maximum number of bad rows to quarantine; with more, the run stops with exit code 3.",
        ),
        click.option(
            "--block-timeout", metavar="TIME", help="Time limit per block, after which its process is ended: 10m."
        ),
        click.option(
            "--renew-after",
            metavar="SIZE|N",
            help="Replace a classifier process after N blocks, or once it uses this much memory (2GiB), if the "
            "classifier leaks memory.",
        ),
        click.option(
            "--single-file",
            is_flag=True,
            help="Write all rows to one file, too: result.csv.gz in --output, made by the workers.",
        ),
        click.option("--resume", is_flag=True, help="Continue the run in --output, if there is one."),
        click.option("--overwrite", is_flag=True, help="Delete the run in --output, and start again."),
    ]
    return _with(command, options)


def region_option(command):
    """Add the AWS region."""
    text = "AWS region.  [default: from your AWS configuration]"
    return click.option("--region", metavar="NAME", help=text)(command)


def instance_options(command):
    """Add the options for EC2 instances, common to `run`, `plan`, `up` and `doctor`."""
    options = [
        region_option,
        click.option(
            "--image",
            metavar="NAME:TAG",
            help="Docker image that all instances run; see `dask-classify image`.  [default: none; instances install "
            "the packages that are installed here]",
        ),
        click.option(
            "--base-image",
            metavar="NAME:TAG",
            help="Image of Python for instances without --image.  [default: the official one]",
        ),
        click.option(
            "--index-url",
            metavar="URL",
            help="Package index, here and for instances without --image.  [default: pip's here; PyPI there]",
        ),
        click.option(
            "--wheels",
            is_flag=True,
            help="Send all packages through the bucket, to instances that reach no package index.",
        ),
        click.option(
            "--staging",
            type=FOLDER,
            metavar="URL",
            help="s3:// folder for the packages of instances without --image.  [default: in --output, if there is one]",
        ),
        click.option(
            "--instance-type",
            metavar="TYPE,...",
            help="Instance types of the workers; the next one is used if EC2 has no capacity.  "
            "[default: c7i.large,c6i.large,c5.large]",
        ),
        click.option(
            "--scheduler-instance-type",
            metavar="TYPE,...",
            help="Instance types of the scheduler.  [default: t3.small,t3a.small; on ARM t4g.small,m6g.medium]",
        ),
        click.option("--ami", metavar="ID", help="AMI with Docker.  [default: the newest Amazon Linux with Docker]"),
        click.option(
            "--instance-profile",
            metavar="NAME",
            help="Instance profile with access to S3.  [default: none; workers get temporary credentials of yours]",
        ),
        click.option("--subnet", metavar="ID,...", help="Subnets.  [default: those of the default VPC]"),
        click.option(
            "--security-group",
            metavar="ID,...",
            help="Security groups.  [default: a new one, which admits only your IP address]",
        ),
        click.option(
            "--private-ip",
            is_flag=True,
            help="Launch instances without public IP addresses; this computer must be inside the VPC.",
        ),
        click.option(
            "--spot", is_flag=True, help="Use spot instances for workers, or on-demand instances if there are none."
        ),
        click.option(
            "--deadline",
            metavar="TIME",
            help="Hard limit: instances shut themselves down after TIME.  [default: 2h]",
        ),
        click.option(
            "--bring-up-limit",
            metavar="TIME",
            help="Time limit for the scheduler and the first workers to be ready.  [default: 10m]",
        ),
        click.option(
            "--idle-timeout",
            metavar="TIME",
            help="Time without work after which the scheduler exits.  [default: 15m]",
        ),
        click.option(
            "--teardown-limit",
            metavar="TIME",
            help="Time limit for terminating all instances.  [default: 5m]",
        ),
        click.option(
            "--min-workers",
            type=int,
            metavar="N",
            help="Start once N workers have joined.  [default: 1]",
        ),
        click.option(
            "--processes-per-worker",
            type=int,
            metavar="N",
            help="Classifier processes per worker.  [default: one per vCPU]",
        ),
        click.option(
            "--price",
            metavar="DOLLARS",
            help="Price per hour of one worker, for estimates.  [default: AWS's, or a table in the package]",
        ),
        click.option("--key-name", metavar="NAME", help="EC2 key pair for ssh; opens port 22 to your IP address."),
        click.option("--tag", metavar="KEY=VALUE", multiple=True, help="Tag for all instances; repeatable."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


class Grouped(click.Command):
    """A command whose help lists the EC2 options separately."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write two lists of options."""
        general, ec2 = [], []
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                (ec2 if param.name in INSTANCE_OPTIONS else general).append(record)
        for title, records in (("Options", general), ("Options for EC2", ec2)):
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=24)


INSTANCE_OPTIONS = [option.name for option in click.command()(instance_options(lambda **options: None)).params]


def target_options(command):
    """Add the options that say when a run must have ended, and what it may cost."""
    options = [
        click.option(
            "--finish-by",
            metavar="HH:MM",
            help="Target time of day, on this computer's clock. A late run goes on, unless --partial is given.",
        ),
        click.option("--finish-in", metavar="TIME", help="The same as a time from now: 45m, 90s."),
        click.option(
            "--budget",
            metavar="DOLLARS",
            help="Maximum estimated cost of the EC2 instances; a run stops before it.",
        ),
    ]
    return _with(command, options)


def limit_options(command):
    """Add the options that stop a run, or make its cluster grow."""
    options = [
        click.option(
            "--max-time",
            metavar="TIME",
            help="Time limit, as 45m or 90s, after which the run stops with exit code 6; --resume continues it.",
        ),
        click.option(
            "--partial",
            is_flag=True,
            help="Publish the finished blocks at the time of --finish-by or --finish-in, with exit code 7.",
        ),
        click.option(
            "--scale-up-to",
            type=click.IntRange(1),
            metavar="N",
            help="Number of EC2 workers to grow to, once, if the run is late.",
        ),
        click.option(
            "--yes",
            is_flag=True,
            help="Start the recommended cluster without asking. Without --budget, that may be up to 256 instances.",
        ),
    ]
    return _with(command, options)


def output_options(command):
    """Add the options that say what a run prints, and logs."""
    options = [
        click.option("--traceback", is_flag=True, help="Print the full traceback if the classifier raises."),
        click.option("--quiet", "-q", is_flag=True, help="Print only errors."),
        click.option("--json", "as_json", is_flag=True, help="Print the manifest, without its parts, as JSON."),
        click.option("--log-json", type=FILE, metavar="FILE", help="Append the run's events to FILE, as JSON Lines."),
    ]
    return _with(command, options)


def sample_options(command):
    """Add the options of an estimate."""
    options = [
        click.option(
            "--sample",
            metavar="N",
            help="Number of rows to try for the estimate; 0 for no estimate.  [default: as many as 2 s or 1 % of the "
            "work allow, whichever is longer; for 10 s at most]",
        ),
        click.option(
            "--history",
            type=FOLDER,
            metavar="URL",
            help="Folder or prefix of earlier runs.  [default: that of the output]",
        ),
        click.option(
            "--from",
            "replayed",
            type=FOLDER,
            metavar="RUN",
            help="Finished run to replay with other numbers of processes, instead of an estimate.",
        ),
    ]
    return _with(command, options)


# of one command, and never of a configuration: what is confirmed, and when this run must finish
NOT_CONFIGURABLE = {"yes", "replayed", "at", "detach"} | {
    option.name
    for add in (target_options, limit_options)
    for option in click.command()(add(lambda **options: None)).params
}

"""fedward-sim: many hospitals on one machine, for the researcher."""

from common.terminal import new_application, run
from simulation.commands.import_arrays import import_arrays
from simulation.commands.phantoms import phantoms

HELP = """Simulate hospitals that train one model together, and see what it bought and what it cost in privacy.

Example: **fedward-sim phantoms** hospitals/
"""

app = new_application("fedward-sim", HELP)
app.command("phantoms")(phantoms)
app.command("import")(import_arrays)


def main() -> None:
    """Entry point of the console script."""
    run(app)


if __name__ == "__main__":
    main()

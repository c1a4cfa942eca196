"""fedward-sim: many hospitals on one machine, for the researcher."""

from common.terminal import new_application, run

HELP = """Simulate hospitals that train one model together, and see what it bought and what it cost in privacy.

Example: **fedward-sim run** demo
"""

COMMANDS = {
    "run": ("simulation.commands.run:run", "Run a whole study on this machine, from scans to the report."),
    "plan": ("simulation.commands.plan:plan", "Write the plan of a scenario for real hospitals."),
    "rehearse": ("simulation.commands.rehearse:rehearse", "Play a whole deployment here, with real processes and TLS."),
    "phantoms": ("simulation.commands.phantoms:phantoms", "Write hospitals of phantom scans with known lesions."),
    "import": ("simulation.commands.import_arrays:import_arrays", "Turn a public image set into hospitals."),
    "adversarial": ("simulation.commands.adversarial:adversarial", "Write hostile DICOM files to try an ingest on."),
}

app = new_application("fedward-sim", HELP, COMMANDS)


def main() -> None:
    """Entry point of the console script."""
    run(app)


if __name__ == "__main__":
    main()

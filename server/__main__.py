"""fedward-server: what the coordinator of a study runs."""

from common.terminal import new_application, run

HELP = """Define a study, sign it, and run it over hospitals whose scans stay where they are.

Examples: **fedward-server plan check** study.toml · **fedward-server plan sign** study.toml --key coordinator.key
"""

app = new_application("fedward-server", HELP)


def main() -> None:
    """Entry point of the console script."""
    run(app)


if __name__ == "__main__":
    main()

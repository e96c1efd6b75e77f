# Called each time that the schedule in nex.toml comes: once, however many copies run. An exception has it called again after a pause.
# Standard error is the log.
import sys


def report(schedule: str) -> str:
    return f"run by {schedule}"


class Run:
    def run(self) -> None:
        print(report(sys.argv[1]), file=sys.stderr)

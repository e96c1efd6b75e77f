# Called with each message on its trigger: standard input is the payload, standard output the reply, standard error the log.
import sys


def greeting(name: str) -> str:
    return f"Hello, {name or 'world'}!"


class Run:
    def run(self) -> None:
        print(greeting(sys.stdin.read().strip()), end="")

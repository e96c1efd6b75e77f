# Called with each message of the stream until it has dealt with it: an end acknowledges, an exception has it tried again after a pause,
# and what fails for good is kept: nex dead ls. Standard input is the message, standard error the log.
import json
import sys


def handle(message: str) -> None:
    order = json.loads(message)
    if not isinstance(order, dict) or not isinstance(order.get("id"), int):
        raise ValueError("an order has a whole number 'id'")
    print(f"order {order['id']} is done", file=sys.stderr)


class Run:
    def run(self) -> None:
        handle(sys.stdin.read())

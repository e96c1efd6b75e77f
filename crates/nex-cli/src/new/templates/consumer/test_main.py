import unittest

from main import handle


class Orders(unittest.TestCase):
    def test_only_orders_are_dealt_with(self):
        handle('{"id": 1}')
        for bad in ["bad", "{}", "[]"]:
            with self.assertRaises(ValueError):
                handle(bad)


if __name__ == "__main__":
    unittest.main()

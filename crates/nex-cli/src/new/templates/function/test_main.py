import unittest

from main import greeting


class Greeting(unittest.TestCase):
    def test_it_greets(self):
        self.assertEqual(greeting("Ada"), "Hello, Ada!")
        self.assertEqual(greeting(""), "Hello, world!")


if __name__ == "__main__":
    unittest.main()

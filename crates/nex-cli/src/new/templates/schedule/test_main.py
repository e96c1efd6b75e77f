import unittest

from main import report


class Report(unittest.TestCase):
    def test_it_names_its_schedule(self):
        self.assertEqual(report("every:1m"), "run by every:1m")


if __name__ == "__main__":
    unittest.main()

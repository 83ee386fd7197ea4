"""Tests of what is pure: python3 -B -m unittest discover bench/side_by_side."""

import unittest

import results
from loads import H2load, Handshakes, Wrk, session
from processes import Failed


class Ratios(unittest.TestCase):
    def test_a_ratio_is_the_median_of_those_of_the_rounds(self):
        found = results.ratio([9, 10, 14], [10, 10, 10])
        self.assertEqual((found.value, found.least, found.most), (1.0, 0.9, 1.4))
        self.assertEqual(str(found), "1.00 (0.90-1.40)")

    def test_a_single_round_has_no_spread(self):
        self.assertEqual(str(results.ratio([9], [10])), "0.90")

    def test_we_are_held_to_the_better_peer(self):
        row = results.against_peers("w", "t", "µs", {"homing": [9], "nginx": [10], "HAProxy": [12]}, 0.9, "{:.1f}")
        self.assertEqual((row.ratio, row.target, row.reached), ("0.90", "≤ 0.90", True))
        row = results.against_peers("w", "t", "µs", {"homing": [9], "nginx": [12], "HAProxy": [9.5]}, 0.9, "{:.1f}")
        self.assertEqual((row.ratio, row.reached), ("0.95", False))

    def test_a_target_is_judged_as_it_is_shown(self):
        self.assertTrue(results.at_most(0.904, 0.90))
        self.assertFalse(results.at_most(0.906, 0.90))

    def test_values_are_shown_in_their_unit(self):
        row = results.against_peers("w", "t", "µs", {"floor": [9.87e-6]}, None, "{:.1f}", 1e6)
        self.assertEqual((row.values, row.ratio, row.reached), ({"floor": "9.9"}, "", None))

    def test_the_summary_counts_only_what_was_judged(self):
        rows = [results.Row("a", "", "µs", {}, reached=reached) for reached in (True, False, None)]
        self.assertEqual(results.summary(rows), "1 of 2 targets reached; not: `a` (µs).")
        self.assertEqual(results.summary(rows[2:]), "")

    def test_a_table_is_as_wide_as_its_widest_cells(self):
        lines = results.table(["a", "b"], [["long", 1]]).splitlines()
        self.assertEqual(lines, ["| a    | b |", "|------|---|", "| long | 1 |"])


class Loads(unittest.TestCase):
    def test_wrk_with_errors_is_no_measurement(self):
        self.assertEqual(Wrk.read("  223326 requests in 3.01s, 235.34MB read\n"), 223326)
        for line in ("  Non-2xx or 3xx responses: 3", "  Socket errors: connect 0, read 1, write 0, timeout 0"):
            with self.assertRaises(Failed):
                Wrk.read(f"  223326 requests in 3.01s, 235.34MB read\n{line}\n")

    def test_h2load_with_errors_is_no_measurement(self):
        form = "requests: 9 total, 9 started, 9 done, {} succeeded, {} failed, 0 errored, 0 timeout\nstatus codes: {} 2xx, 0 3xx, 0 4xx, {} 5xx\n"
        self.assertEqual(H2load.read(form.format(9, 0, 9, 0)), 9)
        for printed in (form.format(8, 1, 9, 0), form.format(9, 0, 8, 1), "nothing"):
            with self.assertRaises(Failed):
                H2load.read(printed)

    def test_handshakes_must_be_of_the_kind_that_was_asked_for(self):
        self.assertEqual(Handshakes(resume=True).read('{"succeeded": 1000, "resumed": 984}'), 1000)
        with self.assertRaises(Failed):
            Handshakes(resume=True).read('{"succeeded": 1000, "resumed": 500}')
        with self.assertRaises(Failed):
            Handshakes(resume=False).read('{"succeeded": 1000, "resumed": 1}')

    def test_session_ids_are_as_long_as_those_of_applications(self):
        self.assertEqual(len(session(0)), 32)
        self.assertEqual(len(session(80_000_004)), 32)


if __name__ == "__main__":
    unittest.main()

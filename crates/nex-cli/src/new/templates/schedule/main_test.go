package main

import "testing"

func TestItNamesItsSchedule(t *testing.T) {
	if got := report("every:1m"); got != "run by every:1m" {
		t.Error(got)
	}
}

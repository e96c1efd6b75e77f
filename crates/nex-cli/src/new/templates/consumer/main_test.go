package main

import "testing"

func TestOnlyOrdersAreDealtWith(t *testing.T) {
	if err := handle([]byte(`{"id": 1}`)); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"bad", "{}"} {
		if handle([]byte(bad)) == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

package handlers

import "testing"

func TestPlaces(t *testing.T) {
	p := newPlaces(5, 3)
	var back []func()
	for _, row := range []struct {
		user    string
		reached int
	}{{"a", 0}, {"a", 0}, {"a", 0}, {"a", 3}, {"b", 0}, {"b", 0}, {"b", 5}, {"a", 3}, {"c", 5}} {
		giveBack, reached := p.take(row.user)
		if reached != row.reached || (giveBack == nil) != (reached > 0) {
			t.Fatalf("%s: %d, want %d", row.user, reached, row.reached)
		}
		if giveBack != nil {
			back = append(back, giveBack)
		}
	}
	back[0]()
	if _, reached := p.take("c"); reached > 0 {
		t.Errorf("one given back, and %d reached", reached)
	}
	for _, giveBack := range back[1:] {
		giveBack()
	}
	if p.taken != 1 || len(p.byUser) != 1 {
		t.Errorf("%d taken, by %v", p.taken, p.byUser)
	}
	unbounded := newPlaces(0, 0)
	for range 1000 {
		if _, reached := unbounded.take("a"); reached > 0 {
			t.Fatal(reached)
		}
	}
}

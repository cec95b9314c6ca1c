package sample

import "testing"

func TestTested(t *testing.T) {
	for n, want := range map[int]bool{1: false, 2: false, 3: true, 4: true} {
		if got := tested(n); got != want {
			t.Errorf("tested(%d) = %t", n, got)
		}
	}
}

func TestUnequal(t *testing.T) {
	for _, pair := range [][2]int{{1, 2}, {2, 1}, {2, 2}} {
		if got := unequal(pair[0], pair[1]); got != max(pair[0], pair[1]) {
			t.Errorf("unequal(%d, %d) = %d", pair[0], pair[1], got)
		}
	}
}

func TestLoop(t *testing.T) {
	if got := loop(3); got != 6 {
		t.Errorf("loop(3) = %d", got)
	}
}

func TestText(t *testing.T) {
	if got := text("a"); got != "a!" {
		t.Errorf("text(a) = %s", got)
	}
}

package measure

import "testing"

func TestSeconds(t *testing.T) {
	for want, s := range map[string]float64{
		"0": 0, "12.3 µs": 12.34e-6, "123 µs": 123.4e-6, "1.23 ms": 1.234e-3, "12.3 ms": 12.34e-3, "123 ms": 123.4e-3, "12.34 s": 12.34,
		"-1.50 ms": -1.5e-3,
	} {
		if got := Seconds(s); got != want {
			t.Errorf("Seconds(%v) = %q, want %q", s, got, want)
		}
	}
}

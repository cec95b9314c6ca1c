package measure

import (
	"fmt"
	"time"
)

// Seconds shows three digits or so, in microseconds, milliseconds or seconds.
func Seconds(s float64) string {
	if s < 0 {
		return "-" + Seconds(-s)
	}
	switch ms := s * 1000; {
	case ms == 0:
		return "0"
	case ms < 0.1:
		return fmt.Sprintf("%.1f µs", ms*1000)
	case ms < 1:
		return fmt.Sprintf("%.0f µs", ms*1000)
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.2f s", s)
}

// Duration is Seconds of a duration.
func Duration(d time.Duration) string { return Seconds(d.Seconds()) }

// PerSecond shows a rate.
func PerSecond(rate float64) string {
	if rate == 0 {
		return "0/s"
	}
	return fmt.Sprintf("%.3f/s", rate)
}

// Megabytes shows millions of bytes.
func Megabytes(bytes float64) string { return fmt.Sprintf("%.1f MB", bytes/1e6) }

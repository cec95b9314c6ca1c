// Package terminal makes what strangers wrote fit to be shown to people. Whoever
// may write to a pod or a lock chooses words there, and a terminal obeys control
// characters: they could hide a line, or forge one.
package terminal

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxText bounds what Text returns, in runes.
const maxText = 256

// maxLines bounds what Line and Lines return, in bytes of their argument.
const maxLines = 4 << 10

// Text returns one word or sentence as it is if it is short and can be printed.
// Every other character becomes an escape as in Go, also line breaks, tabs, and
// what turns the direction of writing. Of what is long the beginning is kept.
func Text(s string) string {
	var b strings.Builder
	for n := 0; s != ""; n++ {
		if n == maxText {
			b.WriteString("…")
			break
		}
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x` + hex(s[0]))
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		s = s[size:]
	}
	return b.String()
}

func hex(b byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{digits[b>>4], digits[b&0xf]})
}

// Line is Text for a sentence of our own that quotes strangers, of any length up to
// some kilobytes.
func Line(s string) string {
	if len(s) > maxLines {
		s = s[:maxLines] + "…"
	}
	return escaped(s)
}

// Lines is Line for what has several lines, as errors have.
func Lines(s string) string {
	if len(s) > maxLines {
		s = s[:maxLines] + "…"
	}
	var b strings.Builder
	for line := range strings.Lines(s) {
		text, ended := strings.CutSuffix(line, "\n")
		b.WriteString(escaped(text))
		if ended {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// escaped is Text of any length.
func escaped(s string) string {
	var b strings.Builder
	for s != "" {
		end := min(len(s), maxText)
		for end < len(s) && !utf8.RuneStart(s[end]) {
			end++
		}
		b.WriteString(Text(s[:end]))
		s = s[end:]
	}
	return b.String()
}

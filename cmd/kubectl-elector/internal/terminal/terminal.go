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

// maxLines bounds what Lines returns, in bytes of its argument.
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

// Lines is Text for sentences of our own that quote strangers, such as errors: of
// any length up to some kilobytes, and of several lines.
func Lines(s string) string {
	if len(s) > maxLines {
		s = s[:maxLines] + "…"
	}
	var b strings.Builder
	for line := range strings.Lines(s) {
		text, ended := strings.CutSuffix(line, "\n")
		for text != "" {
			end := min(len(text), maxText)
			for end < len(text) && !utf8.RuneStart(text[end]) {
				end++
			}
			b.WriteString(Text(text[:end]))
			text = text[end:]
		}
		if ended {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

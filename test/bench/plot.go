package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/elector-io/elector/test/bench/internal/measure"
)

// chart is a plot of cumulative distributions: which share of the tries took no longer than x.
type chart struct {
	title string
	// log makes x logarithmic, for what differs by orders of magnitude.
	log bool
	// mark is a time worth a line of its own; 0 is none.
	mark     time.Duration
	markName string
	lines    []latency
}

// The layout, in pixels.
const (
	chartWidth, chartHeight = 800, 460
	plotLeft, plotRight     = 64, 776
	plotTop, plotBottom     = 96, 404
	legendLeft, legendStep  = 150, 170
)

// dashes tell numbers of replicas apart, colours the implementations.
var dashes = [...]string{"none", "8 4", "2 3"}

// style has colours for light and for dark pages; GitHub shows either. The chart has a background of its own, because the page may be
// dark where the reader's system is not.
const style = `<style>
.paper{fill:#ffffff}.text{fill:#1f2328;font:13px system-ui,sans-serif}.title{font-size:16px;font-weight:600}.grid{stroke:#d8dee4}
.mark{stroke:#656d76}.line{fill:none;stroke-width:2}.elector{stroke:#0a58ca}.client-go{stroke:#c2410c}
@media(prefers-color-scheme:dark){.paper{fill:#0d1117}.text{fill:#e6edf3}.grid{stroke:#30363d}.mark{stroke:#8b949e}
.elector{stroke:#58a6ff}.client-go{stroke:#fb923c}}
</style>
`

// writeSVG draws the chart.
func (c chart) writeSVG(w io.Writer) error {
	x := c.axis()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n", chartWidth, chartHeight, escape(c.title))
	b.WriteString(style)
	fmt.Fprintf(&b, `<rect class="paper" width="%d" height="%d" rx="6"/>`+"\n", chartWidth, chartHeight)
	text(&b, "title", "start", plotLeft, 28, c.title)
	c.drawLegend(&b)
	for _, percent := range []int{0, 25, 50, 75, 95, 100} {
		at := height(float64(percent) / 100)
		fmt.Fprintf(&b, `<path class="grid" d="M%d %.1fH%d"/>`+"\n", plotLeft, at, plotRight)
		text(&b, "", "end", plotLeft-8, at+4, fmt.Sprintf("%d %%", percent))
	}
	for _, t := range x.ticks {
		at := x.position(t)
		fmt.Fprintf(&b, `<path class="grid" d="M%.1f %dV%d"/>`+"\n", at, plotTop, plotBottom)
		text(&b, "", "middle", at, plotBottom+20, tickLabel(t))
	}
	if c.mark > 0 {
		at := x.position(c.mark.Seconds())
		fmt.Fprintf(&b, `<path class="mark" stroke-dasharray="4 4" d="M%.1f %dV%d"/>`+"\n", at, plotTop, plotBottom)
		text(&b, "", "middle", at, plotTop-6, c.markName)
	}
	text(&b, "", "middle", (plotLeft+plotRight)/2, plotBottom+44, "time without a leader")
	for i, l := range c.lines {
		for _, who := range implementations {
			drawLine(&b, x, l.of[who], who.String(), dashes[i%len(dashes)])
		}
	}
	b.WriteString("</svg>\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("writing a plot: %w", err)
	}
	return nil
}

// drawLegend names colours and dashes, one row per implementation.
func (c chart) drawLegend(b *strings.Builder) {
	for row, who := range implementations {
		y := float64(52 + 20*row)
		text(b, "", "start", plotLeft, y, who.String())
		for i, l := range c.lines {
			left := legendLeft + legendStep*i
			fmt.Fprintf(b, `<path class="line %s" stroke-dasharray="%s" d="M%d %.1fh36"/>`+"\n", who, dashes[i%len(dashes)], left, y-4)
			text(b, "", "start", float64(left+44), y, fmt.Sprintf("%d replicas", l.replicas))
		}
	}
}

// drawLine draws the distribution of s as the staircase that it is.
func drawLine(b *strings.Builder, x axis, s measure.Sample, class, dash string) {
	if len(s) == 0 {
		return
	}
	fmt.Fprintf(b, `<path class="line %s" stroke-dasharray="%s" d="M%.1f %d`, class, dash, x.position(s.Quantile(0).Seconds()), plotBottom)
	for i, d := range s.Sorted() {
		fmt.Fprintf(b, "H%.1fV%.1f", x.position(d.Seconds()), height(float64(i+1)/float64(len(s))))
	}
	b.WriteString("\"/>\n")
}

func text(b *strings.Builder, class, anchor string, x, y float64, s string) {
	fmt.Fprintf(b, `<text class="%s" text-anchor="%s" x="%.1f" y="%.1f">%s</text>`+"\n", strings.TrimSpace("text "+class), anchor, x, y, escape(s))
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder does not fail
	return b.String()
}

// height is where a share lies on the page.
func height(share float64) float64 { return plotBottom - share*(plotBottom-plotTop) }

// axis maps seconds to the page.
type axis struct {
	log      bool
	from, to float64 // seconds
	ticks    []float64
}

func (a axis) position(seconds float64) float64 {
	from, to := a.from, a.to
	if a.log {
		from, to, seconds = math.Log10(from), math.Log10(to), math.Log10(seconds)
	}
	return plotLeft + (seconds-from)/(to-from)*(plotRight-plotLeft)
}

// axis spans what was measured: whole decades, or whole seconds.
func (c chart) axis() axis {
	shortest, longest := math.Inf(1), 0.0
	for _, l := range c.lines {
		for _, s := range l.of {
			if len(s) > 0 {
				shortest, longest = min(shortest, s.Quantile(0).Seconds()), max(longest, s.Max().Seconds())
			}
		}
	}
	if c.mark > 0 {
		shortest, longest = min(shortest, c.mark.Seconds()), max(longest, c.mark.Seconds())
	}
	if longest == 0 {
		shortest, longest = 1, 10
	}
	a := axis{log: c.log}
	if c.log {
		first, last := math.Floor(math.Log10(shortest)), math.Ceil(math.Log10(longest))
		last = max(last, first+1)
		a.from, a.to = math.Pow(10, first), math.Pow(10, last)
		for exponent := first; exponent <= last; exponent++ {
			a.ticks = append(a.ticks, math.Pow(10, exponent))
		}
		return a
	}
	a.from, a.to = math.Floor(shortest), math.Floor(longest)+1
	step := math.Ceil((a.to - a.from) / 12)
	for t := a.from; t <= a.to; t += step {
		a.ticks = append(a.ticks, t)
	}
	return a
}

func tickLabel(seconds float64) string {
	if seconds < 1 {
		return fmt.Sprintf("%g ms", math.Round(seconds*1e6)/1e3)
	}
	return fmt.Sprintf("%g s", seconds)
}

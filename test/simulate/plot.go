package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// chart is a plot of lines, drawn as SVG. A logarithmic axis has its ticks at powers
// of ten and what is given.
type chart struct {
	title, x, y  string
	xTicks       []float64
	yTicks       []float64
	xLog, yLog   bool
	xUnit, yUnit string
	lines        []plotted
}

// plotted is one line.
type plotted struct {
	name   string
	colour string
	dashed bool
	points [][2]float64
}

// The picture, in pixels.
const (
	width, height            = 800., 340.
	left, right, top, bottom = 72., 232., 34., 48.
)

func (c chart) svg() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="12" fill="#222">`+"\n", width, height)
	fmt.Fprintf(&b, `<title>%s</title><rect width="100%%" height="100%%" fill="#fff"/>`+"\n", c.title)
	fmt.Fprintf(&b, `<text x="%.0f" y="20" font-size="14" font-weight="bold">%s</text>`+"\n", left, c.title)
	for _, v := range c.yTicks {
		y := c.atY(v)
		fmt.Fprintf(&b, `<path d="M%.0f %.1fH%.0f" stroke="#ddd"/><text x="%.0f" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, y, width-right, left-6, y+4, number(v)+c.yUnit)
	}
	for _, v := range c.xTicks {
		x := c.atX(v)
		fmt.Fprintf(&b, `<path d="M%.1f %.0fV%.0f" stroke="#ddd"/><text x="%.1f" y="%.0f" text-anchor="middle">%s</text>`+"\n",
			x, top, height-bottom, x, height-bottom+16, number(v)+c.xUnit)
	}
	fmt.Fprintf(&b, `<text x="%.0f" y="%.0f" text-anchor="middle">%s</text>`+"\n", (left+width-right)/2, height-10, c.x)
	fmt.Fprintf(&b, `<text transform="translate(14 %.0f) rotate(-90)" text-anchor="middle">%s</text>`+"\n", (top+height-bottom)/2, c.y)
	for i, l := range c.lines {
		dash := ""
		if l.dashed {
			dash = ` stroke-dasharray="5 3"`
		}
		style := fmt.Sprintf(`fill="none" stroke="%s" stroke-width="2"%s`, l.colour, dash)
		fmt.Fprintf(&b, `<path d="%s" %s/>`+"\n", c.path(l), style)
		y := top + 14 + 20*float64(i)
		fmt.Fprintf(&b, `<path d="M%.0f %.0fh20" %s/><text x="%.0f" y="%.0f">%s</text>`+"\n", width-right+12, y-4, style, width-right+38, y, l.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (c chart) path(l plotted) string {
	var b strings.Builder
	for i, p := range l.points {
		fmt.Fprintf(&b, "%c%.1f %.1f", "ML"[min(i, 1)], c.atX(p[0]), c.atY(p[1]))
	}
	return b.String()
}

func (c chart) atX(v float64) float64 {
	return left + place(v, c.xTicks, c.xLog)*(width-left-right)
}

func (c chart) atY(v float64) float64 {
	return height - bottom - place(v, c.yTicks, c.yLog)*(height-top-bottom)
}

// place is where a value stands between the first and the last tick, from 0 to 1.
func place(v float64, ticks []float64, logarithmic bool) float64 {
	first, last := ticks[0], ticks[len(ticks)-1]
	v = min(max(v, first), last)
	if logarithmic {
		return math.Log(v/first) / math.Log(last/first)
	}
	return (v - first) / (last - first)
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

var colours = []string{"#b8860b", "#8a8a8a", "#2b6cb0", "#2b6cb0", "#c0392b"}

// plots are the pictures of a report, by file name.
func (r Report) plots() map[string]string {
	hours := []float64{0, 30, 60, 90, 120, 150, 180}
	if r.Config.Minutes != 180 {
		hours = hours[:0]
		for i := range 7 {
			hours = append(hours, float64(i)*r.Config.Minutes/6)
		}
	}
	evening := chart{title: "Playback: wait to the first byte, p99 of five minutes", x: "minute of the evening", y: "seconds, logarithmic",
		xTicks: hours, yTicks: []float64{1, 2, 5, 10, 20, 50, 100, 200}, yLog: true, yUnit: " s"}
	spread := chart{title: "Playback: how many have their first byte by then", x: "seconds since it was asked for, logarithmic", y: "part of all",
		xTicks: []float64{.1, .2, .5, 1, 2, 5, 10, 20, 50}, xLog: true, xUnit: " s", yTicks: []float64{0, 25, 50, 75, 100}, yUnit: " %"}
	queue := chart{title: "Sessions that wait", x: "minute of the evening", y: "sessions, logarithmic", xTicks: hours, yTicks: []float64{1, 10, 100, 1000, 10_000, 100_000}, yLog: true}
	for i, x := range r.Results {
		line := plotted{name: x.Name, colour: colours[i%len(colours)], dashed: i == 3}
		line.points = x.byMinutes(5, .99)
		evening.lines = append(evening.lines, line)
		line.points = x.spread("playback")
		spread.lines = append(spread.lines, line)
		line.points = x.queued(2)
		queue.lines = append(queue.lines, line)
	}
	return map[string]string{"simulate-evening.svg": evening.svg(), "simulate-playback.svg": spread.svg(), "simulate-queue.svg": queue.svg()}
}

// byMinutes is a quantile of playback's waits, of every n minutes of asking.
func (r *Result) byMinutes(n int, q float64) [][2]float64 {
	var points [][2]float64
	for from := 0; from+n <= len(r.minutes); from += n {
		all := slices.Concat(r.minutes[from : from+n]...)
		slices.Sort(all)
		points = append(points, [2]float64{float64(from) + float64(n)/2, quantile(all, 0, q)})
	}
	return points
}

// spread is the distribution of a kind's waits, in percent.
func (r *Result) spread(kind string) [][2]float64 {
	var points [][2]float64
	all := r.seconds[kind] // sorted by finish
	for x := .1; x <= 50; x *= 1.15 {
		below, _ := slices.BinarySearch(all, x)
		points = append(points, [2]float64{x, 100 * float64(below) / float64(r.came[kind])})
	}
	return points
}

// queued is how many wait, the mean of every n minutes.
func (r *Result) queued(n int) [][2]float64 {
	var points [][2]float64
	per := n * 60 / reports
	for from := 0; from+per <= len(r.queue); from += per {
		points = append(points, [2]float64{float64(from*reports)/60 + float64(n)/2, mean(r.queue[from : from+per])})
	}
	return points
}

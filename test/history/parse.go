package history

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/elector-io/elector/test/judge"
	"github.com/elector-io/elector/test/witness"
)

// Log is what one process in a container wrote, in the format that container runtimes keep it in on a node.
type Log struct {
	Namespace, Pod, UID string
	Container           string
	// Restart counts the container's processes before this one.
	Restart int
	Text    string
}

// Parse reads the name of a log file on a node, relative to /var/log/pods: NAMESPACE_POD_UID/CONTAINER/RESTART.log.
func (l *Log) Parse(name string) error {
	parts := strings.Split(name, "/")
	if len(parts) == 3 {
		restart, isLog := strings.CutSuffix(parts[2], ".log")
		n, err := strconv.Atoi(restart)
		pod := strings.Split(parts[0], "_")
		if isLog && err == nil && len(pod) == 3 {
			l.Namespace, l.Pod, l.UID, l.Container, l.Restart = pod[0], pod[1], pod[2], parts[1], n
			return nil
		}
	}
	return fmt.Errorf("%q is not the name of a container's log", name)
}

// messages are what the process wrote, line by line, without what the container runtime put before.
func (l *Log) messages() (lines []string) {
	begun := ""
	for line := range strings.Lines(l.Text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4) // time, stream, P(art) or F(ull), message
		if len(parts) < 4 {
			continue
		}
		if begun += parts[3]; parts[2] == "F" {
			lines = append(lines, begun)
			begun = ""
		}
	}
	return lines
}

// Claim is a period in which a candidate told its application that it leads. One that an application saw in a single look ends before it
// begins: it was there at some moment between the two.
type Claim struct {
	Lock, Identity, Mode string
	// UID is the pod's.
	UID   string
	Token uint64
	// Begin and End are of CLOCK_BOOTTIME. A sidecar's claim is not shorter than the truth, an application's not longer.
	Begin, End time.Duration
	// Reason is why it ended, as the sidecar says; empty when it does not.
	Reason string
	// Open says that nothing in the logs ends the claim.
	Open bool
}

// lock tells a Lease from a ConfigMap of the same name.
func (c *Claim) lock() string { return c.Mode + " " + c.Lock }

// Death is a moment at which the processes of pods were dead for sure.
type Death struct {
	// UIDs are the pods'.
	UIDs []string
	At   time.Duration
}

// Lines are what witnesses logged, as it is.
func (l *Log) Lines() (lines []witness.Line) {
	for _, message := range l.messages() {
		var line witness.Line
		if json.Unmarshal([]byte(message), &line) == nil && line.Event != "" {
			lines = append(lines, line)
		}
	}
	return lines
}

// Seen are the claims that applications saw in one way of looking, in the order of their begin.
func Seen(logs []Log, by witness.By) (claims []Claim) {
	for i := range logs {
		claims = append(claims, SeenIn(logs[i].Lines(), by, logs[i].UID)...)
	}
	return sorted(claims)
}

// SeenIn are the claims that one application saw in one way of looking, of the pod with the UID.
func SeenIn(lines []witness.Line, by witness.By, uid string) (claims []Claim) {
	var c *Claim
	for i := range lines {
		line := &lines[i]
		if line.By != by {
			continue
		}
		switch line.Event {
		case witness.EventLeads:
			claims = append(claims, Claim{
				Lock: line.Lock, Identity: line.Identity, Mode: line.Mode, UID: uid, Token: line.Token, Begin: line.Clock, End: line.Clock - line.Took,
			})
			c = &claims[len(claims)-1]
		case witness.EventStill, witness.EventLooked:
			if c != nil {
				c.End = max(c.End, line.Clock)
			}
		}
	}
	return claims
}

// Made are the claims that sidecars made, in the order of their begin.
//
// Where a process ended without a word, its claim ended with the first of these: what it lasted until, as its process said last; the
// start of the next process in its pod, which removes the leader file; the death of the pod's processes, where somebody knows of it.
// In leader-for-life only the last two count, and a claim that nothing of it ended is open and lasts for ever.
func Made(logs []Log, deaths []Death) (claims []Claim) {
	logs = slices.Clone(logs)
	slices.SortFunc(logs, func(a, b Log) int {
		return cmp.Or(cmp.Compare(a.UID, b.UID), cmp.Compare(a.Container, b.Container), cmp.Compare(a.Restart, b.Restart))
	})
	last := candidate{}
	for i := range logs {
		if l := &logs[i]; last.uid != l.UID || last.container != l.Container {
			claims = append(claims, last.ended()...)
			last = candidate{uid: l.UID, container: l.Container, deaths: deaths}
		}
		for _, message := range logs[i].messages() {
			last.hears(message)
		}
	}
	return sorted(append(claims, last.ended()...))
}

// candidate follows what the processes of one container say, one after the other.
type candidate struct {
	uid, container string
	deaths         []Death
	identity, mode string
	claims         []Claim
	leading        bool
	until          time.Duration // when the last claim ends by itself
}

var (
	klogMessage = regexp.MustCompile(`^[IWEF]\d{4} \S+ +\d+ \S+\] "((?:[^"\\]|\\.)*)"(.*)$`)
	klogField   = regexp.MustCompile(`(\w+)=("(?:[^"\\]|\\.)*"|\S+)`)
)

// said is a line of klog's text format.
func said(message string) (what string, fields map[string]string) {
	m := klogMessage.FindStringSubmatch(message)
	if m == nil {
		return "", nil
	}
	fields = map[string]string{}
	for _, field := range klogField.FindAllStringSubmatch(m[2], -1) {
		value := field[2]
		if unquoted, err := strconv.Unquote(value); err == nil {
			value = unquoted
		}
		fields[field[1]] = value
	}
	return m[1], fields
}

func (c *candidate) hears(message string) {
	what, fields := said(message)
	clock, err := time.ParseDuration(fields["clock"])
	if err != nil {
		return // it says nothing of claims
	}
	switch what {
	case "contending":
		c.identity, c.mode = fields["identity"], fields["mode"]
		c.stops(clock, "")
	case "leading", "still leading":
		token, err := strconv.ParseUint(fields["fencingToken"], 10, 64)
		if err != nil {
			return
		}
		if what == "leading" || !c.leading {
			c.stops(clock, "")
			c.leading = true
			c.claims = append(c.claims, Claim{Lock: fields["lock"], Identity: c.identity, Mode: c.mode, UID: c.uid, Token: token, Begin: clock})
		}
		c.until = judge.Forever
		if until, err := time.ParseDuration(fields["until"]); err == nil {
			c.until = until
		}
	case "standing by":
		c.stops(clock, fields["reason"])
	}
}

// stops ends the claim, if there is one, at the latest at the given time.
func (c *candidate) stops(at time.Duration, reason string) {
	if !c.leading {
		return
	}
	c.leading = false
	last := &c.claims[len(c.claims)-1]
	last.End, last.Reason = min(at, c.until), reason
	for _, d := range c.deaths {
		if slices.Contains(d.UIDs, c.uid) && d.At >= last.Begin {
			last.End = min(last.End, d.At)
		}
	}
	last.Open = last.End == judge.Forever
}

// ended returns all claims when the logs say no more.
func (c *candidate) ended() []Claim {
	c.stops(judge.Forever, "")
	return c.claims
}

func sorted(claims []Claim) []Claim {
	slices.SortStableFunc(claims, func(a, b Claim) int {
		return cmp.Or(cmp.Compare(a.lock(), b.lock()), cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End))
	})
	return claims
}

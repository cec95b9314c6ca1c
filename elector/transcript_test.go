package elector

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the transcripts as they are")

// TestTranscripts plays testdata/candidate/*.txt to a candidate. A line that is not
// indented is an event; the indented ones after it say what the candidate then is
// and what it wants, and the first of them after a write was sent over which version
// that goes and what record it wants, or after what asks for a handover what it obeys.
// -update writes those; the diff is the review.
// Events:
//
//	candidate ID [mode=M] [lease=D] [deadline=D] [retry=D] [grace=D] [jitter=D] [unyielding] [last=leader|standby] [token=N] [version=N]
//	                    a process of the candidate starts; last is what the one before it told
//	at TIME             the time is TIME
//	reading             a reading begins
//	sees RECORD         the reading that began last sees the lock
//	read RECORD         both
//	sends               what is wanted is sent
//	written VERSION     it has led to a record with that version
//	written RECORD      ... or to this one
//	conflict, fails     it found another record; it got no answer
//	denied              what was asked for may not be done
//	resigns, yields, stops
//	                    somebody asks for it
//	works, worked       the application begins to work for the claim, and has let go of it
//
// A RECORD is a version and then either "absent" or any of: by=HOLDER term=N
// renewed=D lease=D foreign=WHY missed next=NAMES handover=TOKEN handover-to=NAME
// handover-why=WHY fault=WHY, and for the note: note=HOLDER write=NAME token=N
// promised=D released to=NAME why=WHY after=VERSION. "note=-" is by the holder itself; a
// write is after what was known last, if nothing else is said. The wall clock's time is
// written as its distance from an epoch, at which each candidate starts; a lease is of
// 15s, if nothing else is said.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/candidate/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := transcribe(string(want))
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got (-update rewrites it):\n%s", diff)
			}
		})
	}
}

// transcript is one candidate with what it has sent last.
type transcript struct {
	c       candidate
	now     time.Duration
	reading int    // the one that began last
	over    Record // what the write that is under way replaces
	sent    Record // what it wants
	line    string // what was said last
	jitter  time.Duration
}

// transcribe plays the events of a transcript and returns it with what came of them.
func transcribe(text string) (string, error) {
	var out strings.Builder
	tr := &transcript{}
	for n, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, " "):
			continue
		case line == "" || strings.HasPrefix(line, "#"):
			out.WriteString(line + "\n")
			continue
		}
		if err := tr.event(strings.Fields(line)); err != nil {
			return "", fmt.Errorf("line %d: %s: %w", n+1, line, err)
		}
		out.WriteString(line + "\n")
		if line == "sends" {
			fmt.Fprintf(&out, "    over v%d:%s\n", tr.over.Version, recordText(tr.sent))
		}
		tr.c.settle(tr.now)
		if request, obeyed := tr.c.obey(tr.now); obeyed {
			fmt.Fprintf(&out, "    obeys %s\n", request)
		}
		if now := tr.state(); now != tr.line {
			out.WriteString("    " + now + "\n")
			tr.line = now
		}
	}
	return out.String(), nil
}

func (tr *transcript) event(words []string) error {
	c, args := &tr.c, words[1:]
	switch words[0] {
	case "candidate":
		return tr.start(args)
	case "at":
		at, err := time.ParseDuration(args[0])
		tr.now = at
		return err
	case "reading":
		tr.reading = c.beginReading(tr.now)
	case "read", "sees":
		rec, err := parseRecord(args)
		if rec.Note.Write != "" && rec.Note.After == 0 {
			rec.Note.After = c.rec.Version
		}
		if words[0] == "read" {
			tr.reading = c.beginReading(tr.now)
		}
		c.observe(rec, tr.reading, tr.now)
		return err
	case "sends":
		op, _ := c.next(tr.now)
		if op == opNone {
			return errors.New("nothing is wanted")
		}
		tr.over, tr.sent = c.send(op, tr.now, epoch.Add(tr.now))
	case "written":
		return tr.written(args)
	case "conflict":
		c.refused(tr.now)
	case "fails":
		c.failed(tr.now)
	case "denied":
		c.denied(tr.now)
	case "resigns":
		c.resign(lossResigned, tr.now)
	case "yields":
		c.yield(tr.now)
	case "stops":
		c.stop(tr.now)
	case "works":
		c.working()
	case "worked":
		c.worked(tr.now)
	default:
		return errors.New("no such event")
	}
	return nil
}

func (tr *transcript) start(args []string) error {
	s := DefaultSettings()
	s.Lock = "web"
	last := Status{}
	tr.c = candidate{identity: args[0], process: "p", grace: DefaultGrace}
	tr.now, tr.reading, tr.line, tr.jitter = 0, 0, "", 0
	for _, arg := range args[1:] {
		name, value, _ := strings.Cut(arg, "=")
		d, _ := time.ParseDuration(value)
		n, _ := strconv.ParseUint(value, 10, 64)
		switch name {
		case "mode":
			s.Mode = Mode(value)
		case "lease":
			s.LeaseDuration = d
		case "deadline":
			s.RenewDeadline = d
		case "retry":
			s.RetryPeriod = d
		case "grace":
			tr.c.grace = d
		case "jitter":
			tr.jitter = d
		case "unyielding":
			tr.c.unyielding = true
		case "last":
			last.Role = Role(value)
		case "token":
			last.FencingToken = n
		case "version":
			last.LockVersion = n
		default:
			return fmt.Errorf("no such setting: %s", name)
		}
	}
	tr.c.settings = s
	if last.Role != "" {
		tr.c.last = &last
	}
	tr.c.jitter = func(limit time.Duration) time.Duration { return min(tr.jitter, limit) }
	return nil
}

func (tr *transcript) written(args []string) error {
	rec := tr.sent
	version, err := strconv.ParseUint(strings.TrimPrefix(args[0], "v"), 10, 64)
	rec.Version, rec.Exists = version, rec.Holder != "" || tr.c.settings.Mode == ModeLease
	rec.AcquireTime = time.Time{} // records here have none
	if len(args) > 1 {
		rec, err = parseRecord(args)
	}
	tr.c.written(rec, tr.now)
	return err
}

var epoch = time.Unix(0, 0)

// parseRecord reads a RECORD.
func parseRecord(words []string) (Record, error) {
	version, err := strconv.ParseUint(strings.TrimPrefix(words[0], "v"), 10, 64)
	if err != nil {
		return Record{}, err
	}
	r := Record{Version: version, Exists: true, LeaseDuration: 15 * time.Second}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		n, _ := strconv.ParseUint(value, 10, 64)
		d, _ := time.ParseDuration(value)
		switch name {
		case "absent":
			return Record{Version: version}, nil
		case "by":
			r.Holder = value
		case "term":
			r.Transitions = int32(n)
		case "renewed":
			r.RenewTime = epoch.Add(d)
		case "lease":
			r.LeaseDuration = d
		case "missed":
			r.Missed = true
		case "foreign":
			r.Foreign = value
		case "note":
			r.Note.Holder = value
			if value == "-" {
				r.Note.Holder = r.Holder
			}
		case "write":
			r.Note.Write = value
		case "token":
			r.Note.Token = n
		case "after":
			r.Note.After = n
		case "promised":
			r.Note.LeaseDuration = d
		case "released":
			r.Note.Released = true
		case "to":
			r.Note.To = value
		case "why":
			r.Note.Why = value
		case "next":
			r.Next = value
		case "handover":
			r.Handover.Token = n
		case "handover-to":
			r.Handover.To = value
		case "handover-why":
			r.Handover.Why = value
		case "fault":
			r.HandoverFault = value
		default:
			return Record{}, fmt.Errorf("no such field: %s", name)
		}
	}
	return r, nil
}

// recordText says what a record says in the form of a RECORD.
func recordText(r Record) string {
	var s strings.Builder
	word := func(is bool, format string, args ...any) {
		if is {
			fmt.Fprintf(&s, " "+format, args...)
		}
	}
	word(r.Handover.Token != 0, "handover=%d", r.Handover.Token)
	word(r.Handover.To != "", "handover-to=%s", r.Handover.To)
	word(r.Handover.Why != "", "handover-why=%s", r.Handover.Why)
	word(r.HandoverFault != "", "fault=%s", r.HandoverFault)
	word(r.Next != "", "next=%s", r.Next)
	note := r.Note.Holder
	if note == r.Holder {
		note = "-"
	}
	word(r.Holder != "", "by=%s", r.Holder)
	word(r.Transitions != 0, "term=%d", r.Transitions)
	word(!r.AcquireTime.IsZero(), "acquired=%v", r.AcquireTime.Sub(epoch))
	word(!r.RenewTime.IsZero(), "renewed=%v", r.RenewTime.Sub(epoch))
	word(r.LeaseDuration != 15*time.Second, "lease=%v", r.LeaseDuration)
	word(true, "note=%s write=%s", note, r.Note.Write)
	word(r.Note.Token != 0, "token=%d", r.Note.Token)
	word(r.Note.LeaseDuration != 0, "promised=%v", r.Note.LeaseDuration)
	word(r.Note.Released, "released")
	word(r.Note.To != "", "to=%s", r.Note.To)
	word(r.Note.Why != "", "why=%s", r.Note.Why)
	word(r.Note.After != 0, "after=%d", r.Note.After)
	return s.String()
}

// state is what the candidate is and wants.
func (tr *transcript) state() string {
	c, now := &tr.c, tr.now
	v := c.view(now)
	s := string(v.role)
	switch {
	case v.role == RoleLeader:
		s += fmt.Sprintf(", token %d", v.token)
		if end := c.claimEnd(); end != forever || v.renewed != 0 {
			s += fmt.Sprintf(", from %v until %v", v.renewed, end)
		}
		if freed := c.tookOver(); freed != 0 {
			s += fmt.Sprintf(", free since %v", freed)
		}
	case v.leader != "":
		s += " of " + v.leader
	case c.holder() != "" && !c.named():
		s += ", " + c.holder() + " is overdue"
	case v.version != 0:
		s += fmt.Sprintf(", leaving v%d", v.version)
	case v.held != 0:
		s += fmt.Sprintf(", held until %v", v.held)
	}
	if c.lost() != "" && v.role == RoleStandby {
		s += ", last claim " + string(c.lost())
	}
	flags := []string{s}
	for _, flag := range []struct {
		is   bool
		name string
	}{{c.held && !c.claiming, "holds"}, {c.twinned(), "twin"}, {c.busy && !c.claiming, "busy"}, {c.resigning, "resigning"}, {c.stopping, "stopping"}, {c.doubt, "in doubt"}} {
		if flag.is {
			flags = append(flags, flag.name)
		}
	}
	s = strings.Join(flags, ", ")
	if c.done() {
		s += "; done"
	}
	op, at := c.next(now)
	switch {
	case c.outread(now):
		s += "; reads anew"
	case c.writing != nil:
		s += fmt.Sprintf("; %s is under way", c.writing.op)
	case op != opNone && at == now:
		s += fmt.Sprintf("; %ss", op)
	case at != forever && at != c.claimEnd():
		wish, _ := c.wish(now)
		s += fmt.Sprintf("; %s at %v", wish, at)
	}
	if why := c.unheeded(); why != "" {
		s += "; says: " + why
	}
	if leave := c.leaveAt(); leave != forever && !c.done() {
		s += fmt.Sprintf(", leaves at %v", leave)
	}
	return s
}

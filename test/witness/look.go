package witness

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The files in the status directory. They are not elector's constants: what an application was told once must stay true.
const (
	leaderFile = "leader"
	statusFile = "status.json"
)

// Status is what an application needs of status.json.
type Status struct {
	Role       string
	Lock       string
	Namespace  string
	Identity   string
	Mode       string
	Token      uint64 `json:"fencingToken"`
	ValidUntil *time.Time
}

// leads tells whether an application would act on it.
func (s *Status) leads() bool {
	return s.Role == "leader" && (s.ValidUntil == nil || time.Now().Before(*s.ValidUntil))
}

// Sight is one look into a status directory.
type Sight struct {
	// Began and Ended are when, on CLOCK_BOOTTIME. What it says was true at some moment between the two.
	Began, Ended time.Duration
	// File tells whether the leader file was there, Name what was in it.
	File bool
	Name string
	// Leads tells whether a careful application would act: the leader file is there, and what status.json promises is not over.
	Leads  bool
	Status Status
	// Raw is status.json as it is, nil if there is none.
	Raw []byte
}

// Look looks into a status directory.
func Look(dir string) Sight {
	s := Sight{Began: Now()}
	// A leader file is put beside a status.json that says leader and removed before that says anything else. So where they differ either
	// was changed meanwhile, and the next look tells, or elector is wrong: then the file has its say.
	for range 3 {
		name, err := os.ReadFile(filepath.Join(dir, leaderFile))
		s.File, s.Name = err == nil, strings.TrimSpace(string(name))
		s.Status = Status{}
		if s.Raw, err = os.ReadFile(filepath.Join(dir, statusFile)); err != nil || json.Unmarshal(s.Raw, &s.Status) != nil {
			s.Status = Status{}
		}
		if !s.File || s.Status.Role == "leader" {
			break
		}
	}
	s.Leads = s.File && s.Status.leads()
	s.Ended = Now()
	return s
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// requests are the manager's. Those of its own election are not counted, and watches are not either.
type requests struct{ writes, reads int }

// auditLog is the API server's, read piece by piece.
type auditLog struct {
	path   string
	offset int64 // of the first line that was not read
}

func (l *lab) audit() *auditLog { return &auditLog{path: filepath.Join(l.dir, "audit.log")} }

// more counts what was logged since the last time.
func (a *auditLog) more() (r requests, err error) {
	f, err := os.Open(a.path)
	if err != nil {
		return r, fmt.Errorf("reading the audit log: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, a.offset, 1<<62))
	if err != nil {
		return r, fmt.Errorf("reading the audit log: %w", err)
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1] // the last line may be half written
	a.offset += int64(len(text))
	for line := range bytes.Lines(text) {
		if err := r.count(line); err != nil {
			return r, err
		}
	}
	return r, nil
}

// count takes in a line.
func (r *requests) count(line []byte) error {
	var entry struct {
		Verb      string
		User      struct{ Username string }
		ObjectRef struct{ Resource, Namespace, Name string } // of requests for objects
	}
	if err := json.Unmarshal(line, &entry); err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	object := entry.ObjectRef
	own := object.Resource == "leases" && object.Namespace == managerNamespace && object.Name == managerName
	if entry.User.Username != managerUser || own {
		return nil
	}
	switch entry.Verb {
	case "create", "update", "patch", "delete":
		r.writes++
	case "get", "list":
		r.reads++
	}
	return nil
}

package control

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func TestControl(t *testing.T) {
	var done []string
	missing := errors.New("not found")
	actions := map[string]Action{
		"crash": func(namespace, pod string) error {
			if pod == "none" {
				return fmt.Errorf("pod %s: %w", pod, missing)
			}
			done = append(done, namespace+"/"+pod)
			return nil
		},
	}
	socket := filepath.Join(t.TempDir(), "s")
	restarts := 0
	s, err := Listen(socket, actions, func(context.Context) error {
		if restarts++; restarts > 1 {
			return errors.New("too often")
		}
		return nil
	}, missing)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- s.Serve(t.Context()) }()
	tests := []struct{ name, path, want string }{
		{name: "Done", path: "pods/default/web-0/crash"},
		{name: "Missing", path: "pods/default/none/crash", want: "not found"},
		{name: "Unknown", path: "pods/default/web-0/explode", want: "there are crash"},
		{name: "Restart", path: "apiserver/restart"},
		{name: "Failure", path: "apiserver/restart", want: "too often"},
	}
	for _, tc := range tests {
		name := tc.name
		err := Post(t.Context(), socket, tc.path)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	if len(done) != 1 || done[0] != "default/web-0" {
		t.Errorf("done %q, want one action on default/web-0", done)
	}
	if err := Post(t.Context(), socket, "stop"); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, ErrStopped) {
		t.Errorf("Serve returned %v, want ErrStopped", err)
	}
}

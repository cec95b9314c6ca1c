package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"kubectl-elector": main}) }

var update = os.Getenv("UPDATE_SCRIPTS") != ""

// TestScripts runs testdata/*.txt: what needs no cluster. The others are in
// test/integration/plugin. UPDATE_SCRIPTS=1 writes what the commands say into
// the files that they are compared with.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata", UpdateScripts: update, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("KUBECONFIG", env.Getenv("WORK")+"/no-kubeconfig")
			env.Setenv("ESC", "\x1b")
			return nil
		},
	})
}

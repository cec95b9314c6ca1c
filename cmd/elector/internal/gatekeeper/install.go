package gatekeeper

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// wrapperFile is the wrapper's name, beside the sidecar's own program and where the
// app containers find it.
const wrapperFile = "gate"

// Install copies the wrapper that lies beside this program into dir, where the app
// containers find it. They see either no file or a whole one.
func Install(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding the wrapper: %w", err)
	}
	return install(filepath.Join(filepath.Dir(self), wrapperFile), dir)
}

func install(from, dir string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("finding the wrapper: %w", err)
	}
	defer source.Close()
	temporary, err := os.CreateTemp(dir, ".gate-")
	if err != nil {
		return fmt.Errorf("copying the wrapper: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("copying the wrapper: %w", err), os.Remove(temporary.Name()))
		}
	}()
	_, err = io.Copy(temporary, source)
	if err == nil {
		err = temporary.Chmod(0o555)
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), filepath.Join(dir, wrapperFile))
}
